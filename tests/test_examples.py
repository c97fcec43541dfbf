"""The examples in docstrings are run as they stand."""

import doctest
import importlib
from pathlib import Path

import pytest

import mmrkd
from mmrkd.models import DistillMethod, methods

PACKAGE = Path(mmrkd.__file__).parent
FILES = [p for p in sorted(PACKAGE.rglob('*.py')) if '>>> ' in p.read_text(encoding='utf-8')]
METHODS = [m for m in vars(methods).values() if isinstance(m, type) and issubclass(m, DistillMethod)]


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_examples(path):
    name = '.'.join(('mmrkd', *path.relative_to(PACKAGE).with_suffix('').parts))
    result = doctest.testmod(importlib.import_module(name), verbose=False)
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize('method', [m for m in METHODS if m is not DistillMethod], ids=lambda method: method.__name__)
def test_every_method_shows_its_config_line(method):
    examples = doctest.DocTestParser().get_examples(method.__doc__)
    built = [e for e in examples if f"type='mmrkd.{method.__name__}'" in e.source]
    assert built, 'an example that builds it is expected'
    assert any(e.want for e in examples), 'an example that shows a value is expected'
