"""What is installed: a wheel in an empty environment beside the stack, with nothing of the clone on the path."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS, init_default_scope

import mmrkd
from mmrkd.engine.launch import read_config
from mmrkd.testing import build_model

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(str(p.relative_to(ROOT / 'configs')) for p in ROOT.glob('configs/*/*.py') if '_base_' not in p.parts)
EXTRAS = dict(mmseg=('_nuclei.py', '_cityscapes.py'), mmpose=('_beepose.py', '_coco-keypoints.py'))
ABSENT = tuple(end for library, ends in EXTRAS.items() if importlib.util.find_spec(library) is None for end in ends)
READABLE = [name for name in CONFIGS if not name.endswith(ABSENT)]
PLAIN = {key: value for key, value in os.environ.items() if key not in ('PYTHONPATH', 'PYTHONHOME')}


def run(*command, cwd, env=(), succeeds=True):
    environment = {**PLAIN, 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore', **dict(env)}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=280
    )
    assert (done.returncode == 0) == succeeds, done.stdout + done.stderr
    return done.stdout + done.stderr


class TestNamedConfigs:
    """As ``mmdet::...`` is, from a clone that is only on the path."""

    @pytest.mark.parametrize('name', READABLE[::9])
    def test_by_name_it_is_the_file(self, name):
        found = get_config(f'mmrkd::{name}')
        assert os.path.realpath(found.filename) == str(ROOT / 'configs' / name)
        source = found.model.get('teacher') or dict(cfg='::')
        assert '::' in source['cfg'] or os.path.isfile(source['cfg'])

    @pytest.mark.parametrize('name', READABLE[::4])  # each takes seconds, and they share their bases
    def test_as_a_base_every_type_is_still_found(self, name, tmp_path):
        """mmengine looks for bare names of a base in the base's package, which is not where they are."""
        (tmp_path / 'cfg.py').write_text(f"_base_ = 'mmrkd::{name}'\ntrain_cfg = dict(max_epochs=3)\n")
        expected = Config.fromfile(ROOT / 'configs' / name)
        cfg = read_config(str(tmp_path / 'cfg.py'))
        assert cfg.train_cfg.max_epochs == 3
        assert {k: v for k, v in without_scopes(cfg.model).items() if k != 'teacher'} == {
            k: v for k, v in without_scopes(expected.model).items() if k != 'teacher'
        }
        for node in dicts(cfg._cfg_dict):
            assert node.get('_scope_') != 'mmrkd'

    @pytest.mark.parametrize('name', ['wrn40-1_1xb128-200e_cifar10', 'retinanet-r18w8_1xb8-8e_digits'])
    def test_as_a_base_without_us(self, name, tmp_path):
        """Read by mmengine alone: models and what they read are named with the library that they are of."""
        (tmp_path / 'cfg.py').write_text(f"_base_ = 'mmrkd::baselines/{name}.py'\n")
        cfg = Config.fromfile(tmp_path / 'cfg.py')
        init_default_scope(cfg.default_scope)
        assert MODELS.build(cfg.model) is not None
        assert cfg.train_dataloader.dataset._scope_ == cfg.val_evaluator._scope_ == cfg.default_scope

    def test_what_is_not_there(self):
        with pytest.raises(FileNotFoundError, match='no_such'):
            read_config('mmrkd::era/no_such.py')


def dicts(value):
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        yield from dicts(child)


def without_scopes(value):
    if isinstance(value, dict):
        return {k: without_scopes(v) for k, v in value.items() if k != '_scope_'}
    return [without_scopes(v) for v in value] if isinstance(value, (list, tuple)) else value


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """The wheel, and a fresh environment with it that sees the stack of this one."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    source.mkdir()
    for name in ('mmrkd', 'configs'):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, source / name)
    pip = (sys.executable, '-m', 'pip', '--disable-pip-version-check')
    run(*pip, 'wheel', '--no-build-isolation', '--no-deps', '--no-index', '-w', folder, source, cwd=folder)
    (wheel,) = folder.glob('*.whl')
    python = folder / 'env' / 'bin' / 'python'
    run(sys.executable, '-m', 'venv', '--without-pip', folder / 'env', cwd=folder)
    site = Path(run(python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))', cwd=folder).strip())
    (site / 'stack.pth').write_text(f'{sysconfig.get_path("purelib")}\n')
    run(*pip, '--python', python, 'install', '--no-deps', '--no-index', wheel, cwd=folder)
    return SimpleNamespace(wheel=wheel, python=python, command=python.parent / 'mmrkd', site=site)


@pytest.mark.slow
class TestWheel:
    def test_what_is_in_it(self, installed):
        names = set(zipfile.ZipFile(installed.wheel).namelist())
        assert {'mmrkd/py.typed', 'mmrkd/.mim/model-index.yml', 'mmrkd/commands/train.py'} <= names
        assert 'mmrkd/demo/era_retinanet-r18w8_digits.pth' in names
        assert {f'mmrkd/.mim/configs/{name}' for name in CONFIGS} <= names
        assert not [name for name in names if name.startswith(('mmrkd/testing', 'mmrkd/support', 'tests', 'tools'))]
        metadata = zipfile.ZipFile(installed.wheel).read(f'mmrkd-{mmrkd.__version__}.dist-info/METADATA').decode()
        assert 'Requires-Python: >=3.9' in metadata

    def test_every_module_of_it_can_be_imported(self, installed, tmp_path):
        script = (
            'import importlib, json, pkgutil, sys, mmrkd\n'
            "names = [module.name for module in pkgutil.walk_packages(mmrkd.__path__, 'mmrkd.')]\n"
            "[importlib.import_module(name) for name in names if name != 'mmrkd.__main__']\n"
            'print(json.dumps([mmrkd.__file__, len(names), [p for p in sys.path if p]]))\n'
        )
        file, count, path = json.loads(run(installed.python, '-c', script, cwd=tmp_path).splitlines()[-1])
        assert file == str(installed.site / 'mmrkd' / '__init__.py') and count > 80
        assert str(ROOT) not in path

    def test_it_trains_exports_and_tests_from_another_folder(self, installed, squares, tmp_path):
        (tmp_path / 'cfg.py').write_text(f"""_base_ = {squares.student!r}
model = dict(
    _delete_=True, type='mmrkd.Distiller', student=_base_.model,
    teacher=dict(cfg={squares.teacher!r}, ckpt={squares.ckpt!r}), methods=[dict(type='mmrkd.ERA')])
test_dataloader, test_evaluator, test_cfg = _base_.val_dataloader, _base_.val_evaluator, dict()
""")
        assert 'pre-flight check' in run(installed.command, 'train', 'cfg.py', cwd=tmp_path)
        checkpoint = tmp_path / 'work_dirs' / 'cfg' / 'epoch_1.pth'
        saved = torch.load(checkpoint, weights_only=False)
        assert list(saved['state_dict']) == list(build_model(Config.fromfile(squares.student).model).state_dict())
        assert saved['mmrkd']['state_dict']
        assert 'coco/bbox_mAP: ' in run(installed.command, 'test', 'cfg.py', checkpoint, cwd=tmp_path)
        run(installed.command, 'export', 'cfg.py', checkpoint, '--out', 'out', cwd=tmp_path)
        assert (tmp_path / 'out' / 'student.pth').is_file()

    def test_its_configs_are_found(self, installed, tmp_path):
        (tmp_path / 'cfg.py').write_text("_base_ = 'mmrkd::era/era_resnet18w32_resnet18w8_1xb128-30e_cifar10.py'\n")
        script = (
            'import mmrkd\nfrom mmengine.config import Config\nfrom mmengine.hub import get_config\n'
            "name = 'era/era_resnet18w32_resnet18w8_1xb128-30e_cifar10.py'\n"
            "found = get_config(f'mmrkd::{name}')\n"
            "assert Config.fromfile('cfg.py').model.type == found.model.type == 'mmrkd.Distiller'\n"
            'print(found.filename)'
        )
        found = run(installed.python, '-c', script, cwd=tmp_path).strip().splitlines()[-1]
        assert found.startswith(str(installed.site / 'mmrkd' / '.mim' / 'configs'))
        name = 'mmrkd::era/era_retinanet-r18w32_retinanet-r18w8_1xb8-8e_digits.py'
        said = run(installed.command, 'train', name, cwd=tmp_path, succeeds=False)
        assert '[missing-annotations] train_dataloader: data/digits/annotations/train.json' in said
        assert '[teacher-checkpoint-missing]' in said
