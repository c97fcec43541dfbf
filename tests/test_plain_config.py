"""The config of the student alone is one that plain mmengine takes: in both styles, of every config that is shipped."""

from copy import deepcopy
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

import mmrkd
from mmrkd.engine.prepare import complete_config, is_distillation, prepare_config
from mmrkd.plain_config import plain_config, written_out
from mmrkd.registry import HOOKS, MODELS
from mmrkd.testing import tiny_classifier, tiny_retinanet

ROOT = Path(__file__).resolve().parents[1]
FILES = (p for p in ROOT.glob('configs/*/*.py') if p.parent.name != '_base_')
# Those for mmseg and mmpose, which may be absent, are tested in test_segmentation_configs.py and test_pose_configs.py.
EXTRAS = ('_nuclei', '_cityscapes', '_beepose', '_coco-keypoints')
CONFIGS = sorted(str(p.relative_to(ROOT)) for p in FILES if not p.stem.endswith(EXTRAS))
DISTILLATIONS = [path for path in CONFIGS if path.split('/')[1] != 'baselines']
LAZY = """
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop
from mmpretrain.models import GlobalAveragePooling, ImageClassifier, LinearClsHead, ResNet
from torch.optim import SGD

from mmrkd.engine import AutocastOptimWrapper, DistillScheduleHook, SplitCheckpointHook, VariantTestLoop, VariantValLoop
from mmrkd.models import ERA, Distiller
from mmrkd.runner import Runner

default_scope = 'mmpretrain'
student = dict(
    type=ImageClassifier,
    backbone=dict(type=ResNet, depth=18, base_channels=8, stem_channels=8),
    neck=dict(type=GlobalAveragePooling),
    head=dict(type=LinearClsHead, num_classes=4, in_channels=64),
)
data_preprocessor = dict(mean=[127.5] * 3, std=[127.5] * 3, num_classes=4)
model = dict(type=Distiller, student=student, teacher=dict(cfg='teacher.py', ckpt='a.pth'), methods=[dict(type=ERA)])
runner_type = Runner
optim_wrapper = dict(type=AutocastOptimWrapper, dtype='bfloat16', optimizer=dict(type=SGD, lr=0.1))
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=1)
train_dataloader = dict(batch_size=2, dataset=dict(type='CIFAR10', data_root='a', split='train', pipeline=[]))
val_cfg = dict(type=VariantValLoop, variants=('student', 'integrated'))
test_cfg = dict(type=VariantTestLoop, variants=('student',), fp16=True)
default_hooks = dict(checkpoint=dict(type=CheckpointHook, interval=1))
custom_hooks = [dict(type=EMAHook), dict(type=SplitCheckpointHook), dict(type=DistillScheduleHook, end=1)]
"""


@pytest.fixture
def read_again(tmp_path):
    """Returns a function that writes a plain config and reads it, as a user does."""

    def read_again(cfg):
        plain = plain_config(cfg)
        plain.dump(tmp_path / 'plain.py')
        text = (tmp_path / 'plain.py').read_text()
        return Config.fromfile(tmp_path / 'plain.py'), text

    return read_again


def build(cfg, tmp_path):
    """Builds what a plain runner builds before it looks for data, and the optimiser."""
    cfg.work_dir, cfg.log_level = str(tmp_path / 'work_dir'), 'ERROR'
    cfg.experiment_name = f'{tmp_path.name} {id(cfg)}'
    runner = Runner.from_cfg(cfg)
    wrapper = runner.build_optim_wrapper(deepcopy(cfg.optim_wrapper))
    assert type(runner) is Runner and type(wrapper).__module__.startswith('mmengine.')
    return runner


@pytest.fixture
def lazy(tmp_path):
    (tmp_path / 'cfg.py').write_text(LAZY)
    return Config.fromfile(tmp_path / 'cfg.py')


@pytest.mark.parametrize('path', DISTILLATIONS[::3])  # each takes seconds
def test_of_shipped_configs(path, read_again, tmp_path, monkeypatch):
    """As it is, and as a run has it after it was prepared."""
    monkeypatch.chdir(ROOT)
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    before = plain_config(cfg)
    complete_config(cfg)
    cfg.merge_from_dict(dict(load_from='a.pth', resume=True, runner_type='mmrkd.Runner', allow_pickle=True))
    cfg.check = dict(ignore=['swapped'])
    plain, text = read_again(cfg)
    if before.train_cfg.pop('by_epoch', False):
        before.train_cfg.type = 'EpochBasedTrainLoop'
    assert plain._cfg_dict == before._cfg_dict
    ours = {part for part in ('backbone', 'neck') if 'mmrkd' in str(plain.model.get(part))}
    assert ours or 'mmrkd' not in text
    for node in nodes(plain._cfg_dict):
        node.pop('init_cfg', None)  # pretrained weights are not downloaded
    runner = build(plain, tmp_path)
    assert not {'load_from', 'resume', 'runner_type', 'check', 'allow_pickle'} & set(plain)
    assert type(runner.model).__name__ == cfg.model.student.type.split('.')[-1]


@pytest.mark.parametrize('path', [path for path in CONFIGS if path not in DISTILLATIONS])
def test_baselines_are_plain_but_for_their_precision(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    cfg = Config.fromfile(path)
    assert not is_distillation(cfg) and 'runner_type' not in cfg


def nodes(value):
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        yield from nodes(child)


class TestPurePython:
    """A config that imports its classes, and the same as mmengine writes it into a work dir."""

    @pytest.fixture(params=['as it is', 'written out', 'prepared'])
    def cfg(self, request, lazy, tmp_path):
        if request.param == 'prepared':
            return prepare_config(Config({**lazy.to_dict(), 'train_dataloader': None}))
        if request.param == 'written out':
            lazy.dump(tmp_path / 'again.py')
            return Config.fromfile(tmp_path / 'again.py')
        return lazy

    def test_it_is_plain_and_can_be_read(self, cfg, read_again, tmp_path):
        plain, text = read_again(cfg)
        assert 'mmrkd' not in text and '<class' not in text
        assert plain.model.type.endswith('.ImageClassifier') and plain.model.head.num_classes == 4
        assert plain.data_preprocessor.num_classes == 4
        assert [hook.type.split('.')[-1] for hook in plain.custom_hooks] == ['EMAHook']
        assert plain.optim_wrapper.type == 'OptimWrapper' and 'dtype' not in plain.optim_wrapper
        assert plain.val_cfg == dict(type='ValLoop') and plain.test_cfg == dict(type='TestLoop', fp16=True)
        assert plain.train_cfg.type.split('.')[-1] == 'EpochBasedTrainLoop'
        assert plain.default_hooks.checkpoint.type.split('.')[-1] == 'CheckpointHook'
        for name in ('val_cfg', 'test_cfg', *(['train_cfg', 'optim_wrapper'] if not plain.train_dataloader else [])):
            plain[name] = plain[name] if name == 'optim_wrapper' else None
        wrapper = plain.pop('optim_wrapper') if not plain.train_dataloader else plain.optim_wrapper
        plain.work_dir = str(tmp_path / 'work_dir')
        runner = Runner.from_cfg(plain)
        assert type(runner).__module__ == 'mmengine.runner.runner'
        assert type(runner.build_optim_wrapper(wrapper)).__name__ == 'OptimWrapper'
        assert type(runner.model).__name__ == 'ImageClassifier'

    def test_it_is_a_distillation(self, cfg):
        assert is_distillation(cfg)


def distillation(student=None, **parts):
    return Config(dict(model=dict(type='mmrkd.Distiller', student=student or tiny_retinanet(), teacher={}), **parts))


class TestWhatIsReplaced:
    def test_mixed_precision(self):
        for written in ('mmrkd.AutocastOptimWrapper', mmrkd.engine.AutocastOptimWrapper):
            wrapper = dict(type=written, dtype='auto', optimizer=dict(type='SGD', lr=0.1), clip_grad=dict(max_norm=1))
            found = plain_config(distillation(optim_wrapper=wrapper)).optim_wrapper
            assert found == dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1), clip_grad=dict(max_norm=1))
        wrapper = dict(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic', optimizer=dict(type='SGD'))
        assert plain_config(distillation(optim_wrapper=wrapper)).optim_wrapper == wrapper

    def test_a_wrapper_for_each_optimiser(self):
        own = dict(type='mmrkd.AutocastOptimWrapper', dtype='bfloat16', optimizer=dict(type='SGD', lr=0.1))
        wrapper = dict(constructor='Some', backbone=own, head=dict(type='OptimWrapper', optimizer=dict(type='SGD')))
        found = plain_config(distillation(optim_wrapper=wrapper)).optim_wrapper
        assert found.backbone == dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
        assert found.head == wrapper['head'] and found.constructor == 'Some'

    def test_sharding_is_mmengines(self):
        strategy = dict(type='mmrkd.FSDPStrategy', model_wrapper=dict(type='MMFullyShardedDataParallel'))
        plain = plain_config(distillation(strategy=strategy, runner_type='FlexibleRunner'))
        assert plain.strategy == {**strategy, 'type': 'FSDPStrategy'} and plain.runner_type == 'FlexibleRunner'
        assert 'custom_imports' not in plain

    @pytest.mark.parametrize('name', sorted(HOOKS.module_dict))
    def test_hooks_of_ours_are_dropped_or_mmengines(self, name):
        own = [dict(type=f'mmrkd.{name}'), dict(type=name, _scope_='mmrkd'), dict(type=HOOKS.get(f'mmrkd.{name}'))]
        cfg = distillation(custom_hooks=[dict(type='EMAHook'), *own], default_hooks=dict(mine=own[0], timer=None))
        plain = plain_config(cfg)
        assert [hook.type for hook in plain.custom_hooks] == ['EMAHook']
        expected = dict(timer=None)
        if name == 'ResumableCheckpointHook':
            expected = dict(mine=dict(type='CheckpointHook'), timer=None)
        assert plain.default_hooks == expected

    def test_what_belongs_to_the_run_is_not_left(self):
        run = dict(load_from='a.pth', resume=True, check=False, allow_pickle=True, runner_type=mmrkd.Runner)
        assert not set(run) & set(plain_config(distillation(**run)))

    def test_imports_stay_where_the_student_needs_them(self):
        for kind in ('mmrkd.WideResNet', MODELS.get('mmrkd.WideResNet')):
            student = tiny_classifier()
            student['backbone'] = dict(type=kind, depth=10)
            assert plain_config(distillation(student)).custom_imports.imports == ['mmrkd']


def test_written_out_keeps_what_is_no_class():
    cfg = Config(dict(a=dict(type=Runner, b=(1, 2.5, None, 'x')), f=len, g=[tiny_retinanet]))
    assert written_out(cfg).to_dict() == dict(
        a=dict(type='mmengine.runner.runner.Runner', b=(1, 2.5, None, 'x')),
        f='builtins.len',
        g=['mmrkd.testing.tiny_retinanet'],
    )
