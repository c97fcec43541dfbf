"""Files around the package say the same as the package."""

import re
from pathlib import Path

import pytest
import yaml

import mmrkd
from mmrkd.commands import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
YAML = sorted(str(p.relative_to(ROOT)) for p in (*ROOT.glob('.github/**/*.yml'), ROOT / '.pre-commit-config.yaml'))


def test_the_citation_has_the_version():
    cited = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert cited['version'] == mmrkd.__version__
    assert {'2508.16050', '2002.09168', '2111.11747'} == {r['url'].split('/')[-1] for r in cited['references']}


@pytest.mark.parametrize('path', YAML)
def test_workflows_and_templates_are_yaml(path):
    assert yaml.safe_load((ROOT / path).read_text())


@pytest.mark.parametrize('name', ['bug', 'no-gain'])
def test_templates_ask_for_commands_that_exist(name):
    text = (ROOT / f'.github/ISSUE_TEMPLATE/{name}.yml').read_text()
    asked = set(re.findall(r'`mmrkd (\w+)', text))
    assert 'check' in asked and 'env' in asked and asked <= set(COMMANDS)


def test_lint_has_one_version():
    pinned = re.search(r'^ruff==(\S+)', (ROOT / 'requirements/tests.txt').read_text(), flags=re.M)[1]
    assert f'rev: v{pinned}' in (ROOT / '.pre-commit-config.yaml').read_text()


def test_what_is_installed_where(capsys):
    main(['env'])
    said = dict(line.split(': ', 1) for line in capsys.readouterr().out.splitlines() if ': ' in line)
    assert said['mmrkd'] == mmrkd.__version__ and {'torch', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain'} <= said.keys()
    assert said['precision'].split()[0] in ('bfloat16', 'float32') and 'cores' in said['processor']
