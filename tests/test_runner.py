"""One way to run: whoever starts a distillation gets the same training, the same checkpoints and the same resume."""

import os
import runpy
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner as MMEngineRunner

import mmrkd
from mmrkd.checkpoint import METHOD_STATE
from mmrkd.doctor import FaultError
from mmrkd.engine.prepare import prepare_config
from mmrkd.plain_config import DIAGNOSIS_HOOK, OWN_HOOKS
from mmrkd.registry import type_name
from mmrkd.testing import build_model

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def config(squares, tmp_path, killed):
    """Returns a function that writes a config of two epochs with two iterations, as a user would, and names it."""

    def config(name='cfg', kill=None, more=''):
        path = tmp_path / f'{name}.py'
        hooks = [dict(type='EMAHook', momentum=0.5)] + ([dict(type='KillBefore', iteration=kill)] if kill else [])
        path.write_text(f"""_base_ = {squares.student!r}
model = dict(
    _delete_=True, type='mmrkd.Distiller', student=_base_.model,
    teacher=dict(cfg={squares.teacher!r}, ckpt={squares.ckpt!r}),
    methods=[dict(type='mmrkd.ERA')])
runner_type = 'mmrkd.Runner'
train_cfg = dict(max_epochs=2)
custom_hooks = {hooks}
test_dataloader, test_evaluator, test_cfg = _base_.val_dataloader, _base_.val_evaluator, dict()
{more}""")
        return str(path)

    return config


def as_mmdet(path, work_dir, resume=False):
    """What the training scripts of mmdet and mmpretrain do with a config."""
    from mmdet.registry import RUNNERS

    cfg = Config.fromfile(path)
    cfg.work_dir, cfg.launcher = str(work_dir), 'none'
    if resume:
        cfg.resume, cfg.load_from = True, None
    runner = MMEngineRunner.from_cfg(cfg) if 'runner_type' not in cfg else RUNNERS.build(cfg)
    runner.train()


def as_notebook(path, work_dir, resume=False):
    cfg = Config.fromfile(path)
    cfg.work_dir, cfg.resume = str(work_dir), resume
    mmrkd.Runner.from_cfg(cfg).train()


def as_tool(path, work_dir, resume=False):
    argv = sys.argv
    sys.argv = ['train.py', path, '--work-dir', str(work_dir), *(['--resume'] if resume else [])]
    try:
        runpy.run_path(str(ROOT / 'tools' / 'train.py'), run_name='__main__')
    finally:
        sys.argv = argv


WAYS = dict(mmdet=as_mmdet, notebook=as_notebook, tool=as_tool)


def flat(value, name=''):
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in flat(item, f'{name}/{key}').items()}
    if isinstance(value, (list, tuple)):
        return {k: v for i, item in enumerate(value) for k, v in flat(item, f'{name}/{i}').items()}
    return {name: value}


ENTRIES = ('state_dict', 'ema_state_dict', METHOD_STATE, 'optimizer', 'mmrkd_run')


def assert_same(found, expected):
    for entry in ENTRIES:
        left, right = flat(found[entry]), flat(expected[entry])
        assert list(left) == list(right) and right
        for key, value in right.items():
            same = torch.equal(left[key], value) if isinstance(value, torch.Tensor) else left[key] == value
            assert same, (entry, key)


def read(folder, epoch=2):
    return torch.load(folder / f'epoch_{epoch}.pth', weights_only=False)


@pytest.fixture(scope='module')
def whole():
    """What the first way gives that is tried; the others are compared with it."""
    return {}


@pytest.mark.parametrize('way', WAYS)
def test_every_way_gives_the_same_run_also_after_a_kill(way, config, whole, tmp_path, squares, killed):
    WAYS[way](config(), tmp_path / 'whole')
    end = read(tmp_path / 'whole')
    whole.setdefault('end', end)
    assert_same(end, whole['end'])
    plain = build_model(Config.fromfile(squares.student).model)
    assert list(end['state_dict']) == list(plain.state_dict())
    assert len(end[METHOD_STATE]['state_dict']) > 20 and end[METHOD_STATE]['ema_state_dict']

    with pytest.raises(killed):
        WAYS[way](config(kill=3), tmp_path / 'killed')
    assert not (tmp_path / 'killed' / 'epoch_2.pth').exists()
    WAYS[way](config(), tmp_path / 'killed', resume=True)
    assert_same(read(tmp_path / 'killed'), whole['end'])


@pytest.mark.slow
@pytest.mark.parametrize('library', ['mmdet', 'mmpretrain'])
def test_the_scripts_of_the_libraries_themselves(library, config, tmp_path):
    """In a process that has never heard of mmrkd: ``runner_type`` alone brings it in."""
    from mmengine.utils import get_installed_path

    script = Path(get_installed_path(library)) / '.mim' / 'tools' / 'train.py'
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'CUDA_VISIBLE_DEVICES': '', 'OMP_NUM_THREADS': '1'}
    command = [sys.executable, '-W', 'ignore', script, config(), '--work-dir', tmp_path / 'script']
    if library == 'mmpretrain':  # which would collate images of mmdet's into one tensor
        command += ['--cfg-options', 'train_dataloader.collate_fn.type=pseudo_collate']
        command += ['val_dataloader.collate_fn.type=pseudo_collate', 'test_dataloader.collate_fn.type=pseudo_collate']
        command += ['train_dataloader.persistent_workers=False', 'val_dataloader.persistent_workers=False']
        command += ['test_dataloader.persistent_workers=False']
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'pre-flight check' in done.stdout + done.stderr
    as_notebook(config(), tmp_path / 'notebook')
    assert_same(read(tmp_path / 'script'), read(tmp_path / 'notebook'))


class TestPreparation:
    def hooks_of(self, runner):
        return sorted(type_name(hook) for hook in runner.hooks if type_name(hook).startswith('mmrkd.'))

    def test_nothing_is_added_twice(self, config, tmp_path):
        cfg = Config.fromfile(config())
        cfg.work_dir = str(tmp_path / 'first')
        before = deepcopy(cfg._cfg_dict)
        runner = mmrkd.Runner.from_cfg(cfg)
        assert cfg._cfg_dict == before, 'the config of the user is not changed'
        expected = sorted([*OWN_HOOKS, DIAGNOSIS_HOOK, 'mmrkd.ResumableCheckpointHook', 'mmrkd.CheckHook'])
        assert self.hooks_of(runner) == expected
        dumped = Config.fromfile(tmp_path / 'first' / 'cfg.py')
        assert [hook.type for hook in dumped.custom_hooks] == ['EMAHook', *OWN_HOOKS, DIAGNOSIS_HOOK]
        prepared = prepare_config(deepcopy(cfg))
        for again in (cfg, runner.cfg, dumped, prepared):
            again.work_dir = str(tmp_path / 'again')
            assert self.hooks_of(mmrkd.Runner.from_cfg(again)) == expected

    def test_hooks_that_are_there_in_any_spelling(self, config, tmp_path):
        """Twice the same hook would split the checkpoint twice, and leave its entry of the methods empty."""
        cfg = Config.fromfile(config())
        cfg.work_dir = str(tmp_path)
        cfg.custom_hooks = [
            dict(type=mmrkd.engine.SplitCheckpointHook),
            dict(type='MergeCheckpointHook', _scope_='mmrkd'),
            dict(type='mmrkd.engine.hooks.class_check_hook.ClassCheckHook'),
        ]
        runner = mmrkd.Runner.from_cfg(cfg)
        assert self.hooks_of(runner) == sorted(
            [*OWN_HOOKS, DIAGNOSIS_HOOK, 'mmrkd.ResumableCheckpointHook', 'mmrkd.CheckHook']
        )
        runner.train()
        assert len(read(tmp_path)[METHOD_STATE]['state_dict']) > 20

    def test_a_runner_made_of_arguments(self, config, tmp_path):
        """No config at all: the hooks, the loop and the check are there."""
        cfg = Config.fromfile(config())
        names = ('train_dataloader', 'train_cfg', 'optim_wrapper', 'default_hooks')
        runner = mmrkd.Runner(
            cfg.model, str(tmp_path), default_scope='mmdet', randomness=dict(seed=3), **{n: cfg[n] for n in names}
        )
        assert self.hooks_of(runner) == sorted(
            [*OWN_HOOKS, DIAGNOSIS_HOOK, 'mmrkd.ResumableCheckpointHook', 'mmrkd.CheckHook']
        )
        runner.train()
        assert type_name(runner.train_loop) == 'mmrkd.ResumableEpochLoop'
        assert len(read(tmp_path)[METHOD_STATE]['state_dict']) > 20
        assert 'type' not in cfg.train_cfg, 'the arguments of the user are not changed'

    def test_a_plain_model_is_trained_as_by_mmengine(self, squares, tmp_path):
        ends = []
        for kind in (mmrkd.Runner, MMEngineRunner):
            cfg = Config.fromfile(squares.student)
            cfg.work_dir = str(tmp_path / kind.__module__)
            runner = kind.from_cfg(cfg)
            runner.train()
            ends.append(read(Path(runner.work_dir), 1))
            assert not self.hooks_of(runner)
            assert 'custom_hooks' not in Config.fromfile(Path(runner.work_dir) / 'student.py')
        assert sorted(ends[0]) == sorted(ends[1])
        assert all(torch.equal(value, ends[1]['state_dict'][key]) for key, value in ends[0]['state_dict'].items())


class TestCheck:
    def run(self, config, tmp_path, more):
        cfg = Config.fromfile(config(more=more))
        cfg.work_dir = str(tmp_path)
        return mmrkd.Runner.from_cfg(cfg)

    def test_a_fault_stops_the_training_before_it_starts(self, config, tmp_path):
        with pytest.raises(FaultError, match=r'\[no-method\].*\n.*\n.*check = dict'):
            self.run(config, tmp_path, 'model.update(methods=[])').train()
        assert not (tmp_path / 'epoch_1.pth').exists()

    @pytest.mark.parametrize('check', ["dict(ignore=['no-method'])", "dict(ignore='no-method')", 'False'])
    def test_it_can_be_accepted_or_left_out(self, check, config, tmp_path):
        self.run(config, tmp_path, f'model.update(methods=[])\ncheck = {check}').train()
        assert (tmp_path / 'epoch_2.pth').exists()

    @pytest.mark.parametrize(
        'check, message',
        [("dict(ignore=['nomethod'])", "cannot ignore .'nomethod'"), ("'off'", 'check: expected dict.ignore')],
    )
    def test_a_setting_that_means_nothing(self, check, message, config, tmp_path):
        with pytest.raises(ValueError, match=message):
            self.run(config, tmp_path, f'check = {check}')

    def test_what_cannot_be_built_is_named(self, config, tmp_path):
        with pytest.raises(FaultError, match=r'\[method-argument\].*w_faet'):
            self.run(config, tmp_path, "model.update(methods=[dict(type='mmrkd.FitNets', w_faet=1)])")

    def test_missing_data_is_named_when_it_is_needed(self, config, tmp_path):
        runner = self.run(config, tmp_path, "train_dataloader = dict(dataset=dict(ann_file='nowhere.json'))")
        with pytest.raises(FaultError, match=r'\[missing-annotations\] train_dataloader: .*nowhere.json'):
            runner.train()
        assert runner.test()['coco/bbox_mAP'] >= 0  # a machine for testing needs no data for training

    def test_missing_data_of_a_test(self, config, tmp_path):
        runner = self.run(config, tmp_path, "test_dataloader['dataset'].update(ann_file='nowhere.json')")
        with pytest.raises(FileNotFoundError, match='test_dataloader: .*nowhere.json'):
            runner.test()


class Malicious:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.makedirs, (str(self.mark), 0o755, True)


class TestLoading:
    @pytest.fixture
    def trained(self, config, tmp_path):
        as_notebook(config(more='train_cfg.update(max_epochs=1)'), tmp_path / 'run')
        return tmp_path / 'run' / 'epoch_1.pth'

    def cfg(self, config, tmp_path, ckpt, **changes):
        cfg = Config.fromfile(config())
        cfg.merge_from_dict(dict(work_dir=str(tmp_path / 'again'), load_from=str(ckpt), **changes))
        return cfg

    @pytest.mark.parametrize('changes', [dict(), dict(resume=True)], ids=['load', 'resume'])
    def test_no_checkpoint_runs_code_unless_it_may(self, changes, trained, config, tmp_path):
        checkpoint = torch.load(trained, weights_only=False)
        checkpoint['meta']['x'] = Malicious(tmp_path / 'mark')
        torch.save(checkpoint, tmp_path / 'bad.pth')
        cfg = self.cfg(config, tmp_path, tmp_path / 'bad.pth', **changes)
        with pytest.raises(ValueError, match='would run code'):
            mmrkd.Runner.from_cfg(cfg)
        plain = mmrkd.Runner.from_cfg(self.cfg(config, tmp_path, trained))
        with pytest.raises(ValueError, match='would run code'):
            plain.load_checkpoint(str(tmp_path / 'bad.pth'))
        assert not (tmp_path / 'mark').exists()
        cfg.allow_pickle = True
        mmrkd.Runner.from_cfg(cfg).train()
        assert len(list(tmp_path.glob('mark*'))) == 1

    def test_what_is_tested_or_resumed_must_fit(self, trained, config, tmp_path):
        checkpoint = torch.load(trained, weights_only=False)
        checkpoint['state_dict'].pop('bbox_head.retina_cls.bias')
        torch.save(checkpoint, tmp_path / 'less.pth')
        cfg = self.cfg(config, tmp_path, tmp_path / 'less.pth')
        for stage in ('test', 'val'):
            with pytest.raises(ValueError, match='1 missing keys .bbox_head.retina_cls.bias'):
                getattr(mmrkd.Runner.from_cfg(cfg), stage)()
        cfg.resume = True
        with pytest.raises(ValueError, match='1 missing keys .bbox_head.retina_cls.bias'):
            mmrkd.Runner.from_cfg(cfg).train()

    def test_a_torn_file_is_passed_over(self, trained, config, tmp_path):
        content = trained.read_bytes()
        (trained.parent / 'epoch_2.pth').write_bytes(content[: len(content) // 2])
        cfg = Config.fromfile(config())
        cfg.merge_from_dict(dict(work_dir=str(trained.parent), resume=True))
        runner = mmrkd.Runner.from_cfg(cfg)
        assert runner._load_from == str(trained) and runner.cfg.load_from == str(trained)

    def test_nothing_to_resume(self, config, tmp_path):
        cfg = Config.fromfile(config())
        cfg.merge_from_dict(dict(work_dir=str(tmp_path / 'new'), resume=True))
        assert mmrkd.Runner.from_cfg(cfg)._resume is False
