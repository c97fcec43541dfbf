"""Files around the package say the same as the package."""

import re
import subprocess
import sys
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


def test_metafiles_are_those_of_the_configs():
    done = subprocess.run(
        [sys.executable, ROOT / 'tools/make_metafiles.py', '--check'], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr


def test_the_index_names_every_config_once():
    index = yaml.safe_load((ROOT / 'mmrkd/.mim/model-index.yml').read_text())
    models = [model for path in index['Import'] for model in yaml.safe_load((ROOT / path).read_text())['Models']]
    configs = {str(p.relative_to(ROOT)) for p in ROOT.glob('configs/*/*_*_*_*.py') if p.parent.name != 'baselines'}
    assert sorted(model['Config'] for model in models) == sorted(configs - {c for c in configs if '/_base_/' in c})


def test_lint_has_one_version():
    pinned = re.search(r'^ruff==(\S+)', (ROOT / 'requirements/tests.txt').read_text(), flags=re.M)[1]
    assert f'rev: v{pinned}' in (ROOT / '.pre-commit-config.yaml').read_text()


def test_what_is_installed_where(capsys):
    main(['env'])
    said = dict(line.split(': ', 1) for line in capsys.readouterr().out.splitlines() if ': ' in line)
    assert said['mmrkd'] == mmrkd.__version__ and {'torch', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain'} <= said.keys()
    assert said['precision'].split()[0] in ('bfloat16', 'float32') and 'cores' in said['processor']
