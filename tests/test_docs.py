"""The documentation builds without a warning, and what it shows works: each block is run, or says why not.

What is not run is still read: Python compiles, and each `mmrkd ...` line has a command and arguments that exist.
"""

import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from mmengine.hooks import Hook

from mmrkd.commands import build_parser
from mmrkd.models import DistillMethod
from mmrkd.registry import MODELS
from mmrkd.testing import build_distiller, detection_batch, model_inputs, save_random_teacher, tiny_retinanet

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted((ROOT / 'docs').glob('*.md')), *sorted((ROOT / 'configs').glob('**/*.md')), ROOT / 'README.md']
FENCE = re.compile(r'(?:<!-- not run: (?P<why>[^>]+) -->\n)?```(?P<kind>\w+)(?P<more>[^\n]*)\n(?P<text>.*?)```', re.S)


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    kind: str
    text: str
    why: str
    title: str


def blocks():
    for page in PAGES:
        for found in FENCE.finditer(page.read_text(encoding='utf-8')):
            title = re.search(r'title="([^"]+)"', found['more'])
            name = str(page.relative_to(ROOT))
            yield Block(name, found['kind'], found['text'], found['why'] or '', title[1] if title else '')


BLOCKS = [block for block in blocks() if block.kind in ('bash', 'python')]
RUN = [block for block in BLOCKS if not block.why]


def block_id(block):
    return f'{block.page}: {block.text.splitlines()[0][:40]}'


def test_blocks_are_found():
    assert len(BLOCKS) > 10 and len(RUN) >= 2


@pytest.mark.parametrize('block', [b for b in BLOCKS if b.kind == 'python'], ids=block_id)
def test_python_compiles(block):
    compile(block.text, block.page, 'exec')


@pytest.mark.parametrize('block', [b for b in BLOCKS if b.kind == 'bash'], ids=block_id)
def test_commands_and_their_arguments_exist(block):
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ['mmrkd']:
            build_parser().parse_args(words[1:])
        elif words[:1] == ['bash'] and words[1].startswith('tools/'):
            assert (ROOT / words[1]).exists(), line


@pytest.mark.parametrize('block', [b for b in RUN if b.kind == 'bash'], ids=block_id)
def test_commands_run(block, tmp_path):
    """``mmrkd`` is that of this clone."""
    script = f'set -e\nmmrkd() {{ {shlex.quote(sys.executable)} -m mmrkd "$@"; }}\n{block.text}'
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(['bash', '-c', script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_method_of_ones_own_trains_a_detector(tmp_path):
    """As the page has it, from a file outside of the package."""
    (block,) = [b for b in RUN if b.title == 'my_methods.py']
    (tmp_path / block.title).write_text(block.text)
    spec = importlib.util.spec_from_file_location('my_methods', tmp_path / block.title)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        teacher = save_random_teacher(tiny_retinanet(16, 24), tmp_path)
        methods = [dict(type='EnergyHint', w_energy=10.0)]
        distiller = build_distiller(tiny_retinanet(), teacher, methods).train()
        inputs, samples = model_inputs(distiller, detection_batch())
        before = distiller.teacher.fingerprint()
        losses = distiller.loss(inputs, samples)
        losses['energyhint.loss_energy'].backward()
        assert losses['energyhint.loss_energy'] > 0
        assert distiller.student.backbone.conv1.weight.grad.abs().sum() > 0
        assert distiller.teacher.fingerprint() == before
        feature = torch.rand(2, 5, 4, 4)
        assert module.energy_distance(feature, 3 * feature).item() == pytest.approx(0, abs=1e-12)
    finally:
        MODELS.module_dict.pop('EnergyHint', None)


def test_python_blocks_that_run_are_those_that_a_test_here_runs():
    assert [block.title for block in RUN if block.kind == 'python'] == ['my_methods.py']


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    for package in ('mkdocs', 'mkdocstrings'):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f'{package} is not installed: it is in requirements/tests.txt')
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', str(tmp_path)]
    env = {**os.environ, 'NO_MKDOCS_2_WARNING': '1'}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob('*.html')}
    expected = {'index.html', 'get_started.html', 'configs/era/index.html', 'results.html'}
    assert expected | {'tutorial.html', 'api/methods.html'} <= pages


def test_what_sphinx_would_read_becomes_markdown():
    pytest.importorskip('griffe')
    spec = importlib.util.spec_from_file_location('docstrings', ROOT / 'docs/site/docstrings.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = 'One :class:`~a.b.C`, :func:`d.e` and :math:`x_1`.\n\n.. math::\n    L = a \\\\\n      + b\n\nEnd.\n'
    expected = 'One `C`, `d.e` and `x_1`.\n\n```latex\nL = a \\\\\n  + b\n```\n\nEnd.\n'
    assert module.as_markdown(text).strip() == expected.strip()
    drawing = '    Args:\n\n    .. code:: text\n\n        a -- b\n'
    assert '    ```text\n    a -- b\n    ```' in module.as_markdown(drawing)


def test_the_reference_names_all_that_is_public():
    text = ''.join(page.read_text() for page in (ROOT / 'docs/api').glob('*.md'))
    for room in ('mmrkd.models.losses', 'mmrkd.models.necks', 'mmrkd.models.heads', 'mmrkd.models.backbones'):
        for name in importlib.import_module(room).__all__:
            assert f'\n::: {room}.{name}\n' in text, name
    for room, base in (('mmrkd.models.methods', DistillMethod), ('mmrkd.engine.hooks', Hook)):
        for name, member in vars(importlib.import_module(room)).items():
            if isinstance(member, type) and issubclass(member, base) and member is not Hook:
                assert f'\n::: {room}.{name}\n' in text, name


def test_every_page_is_in_the_navigation():
    text = (ROOT / 'mkdocs.yml').read_text()
    for page in (ROOT / 'docs').glob('*.md'):
        assert f'{page.name}\n' in text, f'{page.name} is not in mkdocs.yml'
    for page in (ROOT / 'configs').glob('*/README.md'):
        assert f'configs/{page.parent.name}/README.md\n' in text, f'{page} is not in mkdocs.yml'
