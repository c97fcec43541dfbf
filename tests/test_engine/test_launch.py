import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.runner import Runner

import mmrkd
from mmrkd.engine.launch import add_common_arguments, build_runner, load_config, report_errors
from mmrkd.plain_config import OWN_HOOKS
from mmrkd.registry import type_names

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
model = dict(type='mmrkd.Distiller', student=dict(type='RetinaNet'), teacher=dict())
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
default_scope = 'mmdet'
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Writes a config and loads it with a command line."""

    def load(*command, text=CONFIG, **flags):
        monkeypatch.delenv('LOCAL_RANK', raising=False)
        path = tmp_path / 'some_config.py'
        path.write_text(text)
        parser = argparse.ArgumentParser()
        add_common_arguments(parser)
        args = parser.parse_args([str(path), *command])
        vars(args).update(flags)
        return load_config(args)

    return load


class TestLoadConfig:
    def test_the_work_dir_is_named_after_the_config(self, load):
        assert load().work_dir == os.path.join('work_dirs', 'some_config')

    def test_where_the_work_dir_comes_from(self, load):
        assert load(text=CONFIG + "work_dir = 'from_config'\n").work_dir == 'from_config'
        assert load('--work-dir', 'given', text=CONFIG + "work_dir = 'from_config'\n").work_dir == 'given'

    def test_cfg_options(self, load):
        cfg = load('--cfg-options', 'optim_wrapper.optimizer.lr=0.5', 'model.student.depth=18', 'new.key=[1,2]')
        assert cfg.optim_wrapper.optimizer == dict(type='SGD', lr=0.5)
        assert cfg.model.student == dict(type='RetinaNet', depth=18)
        assert cfg.new.key == [1, 2]

    def test_a_distillation_gets_its_hooks(self, load):
        assert 'mmrkd.SplitCheckpointHook' in [hook['type'] for hook in load().custom_hooks]

    def test_the_options_are_applied_before_the_data_is_looked_for(self, load, tmp_path):
        (tmp_path / 'train.json').write_text('{}')
        text = CONFIG + "train_dataloader = dict(dataset=dict(type='CocoDataset', ann_file='nowhere.json'))\n"
        with pytest.raises(FileNotFoundError, match='nowhere.json'):
            load(text=text)
        load('--cfg-options', f'train_dataloader.dataset.ann_file={tmp_path}/train.json', text=text)

    def test_the_local_rank_of_an_old_launcher(self, load, monkeypatch):
        load('--local-rank', '3')
        assert os.environ['LOCAL_RANK'] == '3'
        load('--local_rank', '2')
        assert os.environ['LOCAL_RANK'] == '2'

    def test_a_launcher_that_sets_the_rank_itself_wins(self, tmp_path, monkeypatch):
        monkeypatch.setenv('LOCAL_RANK', '1')
        (tmp_path / 'some_config.py').write_text(CONFIG)
        args = argparse.Namespace(
            config=str(tmp_path / 'some_config.py'), local_rank=0, launcher='none', cfg_options=None, work_dir=None
        )
        load_config(args)
        assert os.environ['LOCAL_RANK'] == '1'

    def test_a_config_of_a_library(self, tmp_path, monkeypatch):
        name = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'
        args = argparse.Namespace(config=name, local_rank=0, launcher='none', cfg_options=None, work_dir=None)
        args.cfg_options = {f'{part}_dataloader.dataset.data_root': str(tmp_path) for part in ('train', 'val', 'test')}
        cfg = load_config(args)
        assert cfg.model.backbone.type == 'ResNet_CIFAR'
        assert cfg.work_dir == os.path.join('work_dirs', 'resnet18_8xb16_cifar10')
        assert 'custom_hooks' not in cfg

    @pytest.mark.parametrize('text', [CONFIG, CONFIG + "env_cfg = dict(dist_cfg=dict(backend='nccl'), a=1)\n"])
    def test_processes_without_a_gpu_talk_through_gloo(self, load, monkeypatch, text):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
        cfg = load('--launcher', 'pytorch', text=text)
        assert cfg.launcher == 'pytorch'
        assert cfg.env_cfg.dist_cfg == dict(backend='gloo')
        assert cfg.env_cfg.get('a') == (1 if 'a=1' in text else None)
        assert load('--launcher', 'none', text=text).get('env_cfg', {}).get('dist_cfg') != dict(backend='gloo')

    def test_processes_with_gpus_keep_their_backend(self, load, monkeypatch):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
        cfg = load('--launcher', 'pytorch', text=CONFIG + "env_cfg = dict(dist_cfg=dict(backend='nccl'))\n")
        assert cfg.env_cfg.dist_cfg == dict(backend='nccl')


class TestAmp:
    def test_on_a_cpu(self, load, monkeypatch):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
        assert load(amp=True).optim_wrapper == dict(
            type='mmrkd.AutocastOptimWrapper', optimizer=dict(type='SGD', lr=0.1)
        )

    def test_on_a_gpu(self, load, monkeypatch):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
        wrapper = load(amp=True).optim_wrapper
        assert (wrapper.type, wrapper.loss_scale) == ('AmpOptimWrapper', 'dynamic')
        text = CONFIG.replace("type='OptimWrapper'", "type='OptimWrapper', loss_scale=512.0")
        assert load(amp=True, text=text).optim_wrapper.loss_scale == 512.0

    def test_off(self, load):
        assert load(amp=False).optim_wrapper.type == 'OptimWrapper'


class TestAutoScaleLr:
    def test_it_is_switched_on(self, load):
        text = CONFIG + 'auto_scale_lr = dict(enable=False, base_batch_size=16)\n'
        assert load(auto_scale_lr=True, text=text).auto_scale_lr == dict(enable=True, base_batch_size=16)
        assert load(auto_scale_lr=False, text=text).auto_scale_lr.enable is False

    @pytest.mark.parametrize('text', ['', 'auto_scale_lr = dict(enable=False)\n'])
    def test_it_needs_the_batch_size_that_the_rate_was_made_for(self, load, text):
        with pytest.raises(ValueError, match='--auto-scale-lr needs auto_scale_lr = dict.base_batch_size'):
            load(auto_scale_lr=True, text=CONFIG + text)


class TestBuildRunner:
    def test_a_distillation_gets_ours_and_a_plain_config_mmengines(self, run_cfg, tmp_path):
        for plain, kind in ((False, mmrkd.Runner), (True, Runner)):
            runner = build_runner(run_cfg(tmp_path, plain=plain))
            assert type(runner) is kind and runner.work_dir == str(tmp_path)

    def test_a_runner_of_the_users(self, run_cfg, tmp_path):
        from mmengine.registry import RUNNERS

        class MyRunner(Runner):
            pass

        RUNNERS.register_module(module=MyRunner)
        try:
            runner = build_runner(run_cfg(tmp_path, runner_type='MyRunner', custom_hooks=[]))
            assert type(runner) is MyRunner
            assert {name for hook in runner.hooks for name in type_names(hook)} >= set(OWN_HOOKS)
        finally:
            RUNNERS._module_dict.pop('MyRunner')


@pytest.fixture
def logger(request, tmp_path):
    """The current logger: without a file, or with one if the test asks for it."""
    name, file = f'logger of {request.node.name}', getattr(request, 'param', None)
    yield MMLogger.get_instance(name, log_file=file and str(tmp_path / file))
    MMLogger._instance_dict.pop(name)


@pytest.mark.usefixtures('logger')
class TestReportErrors:
    @pytest.mark.parametrize('error', [ValueError, TypeError, KeyError, FileNotFoundError, OSError])
    def test_an_expected_error_is_one_message(self, error):
        @report_errors
        def main():
            raise error('the teacher is asleep')

        with pytest.raises(SystemExit) as end:
            main()
        # Python prints a code that is a string and exits with 1.
        assert isinstance(end.value.code, str)
        assert end.value.code.startswith(f'{error.__name__}: ') and 'the teacher is asleep' in end.value.code
        assert 'MMRKD_DEBUG=1' in end.value.code

    @pytest.mark.parametrize('logger', ['run.log'], indirect=True)
    def test_a_run_with_a_log_file_finds_the_traceback_there(self, logger, tmp_path):
        @report_errors
        def main():
            raise ValueError('the teacher is asleep')

        with pytest.raises(SystemExit) as end:
            main()
        log = tmp_path / 'run.log'
        assert str(log) in end.value.code and 'MMRKD_DEBUG' not in end.value.code
        assert 'Traceback' in log.read_text() and 'in main' in log.read_text()

    def test_with_mmrkd_debug_it_is_raised(self, monkeypatch):
        monkeypatch.setenv('MMRKD_DEBUG', '1')

        @report_errors
        def main():
            raise ValueError('the teacher is asleep')

        with pytest.raises(ValueError, match='asleep'):
            main()

    @pytest.mark.parametrize(
        'text',
        [
            'CUDA out of memory. Tried to allocate 2.00 GiB.',
            "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you asked for 8 bytes.",
        ],
    )
    def test_what_to_do_when_the_memory_is_not_enough(self, text):
        @report_errors
        def main():
            raise RuntimeError(text)

        with pytest.raises(SystemExit) as end:
            main()
        message = end.value.code
        assert text in message and all(word in message for word in ('batch_size', '--amp', 'twi_on', 'num_branches'))

    def test_the_class_that_torch_has_for_it(self):
        @report_errors
        def main():
            raise torch.cuda.OutOfMemoryError('CUDA out of memory')

        with pytest.raises(SystemExit, match='The memory was not enough'):
            main()

    @pytest.mark.parametrize('error', [ZeroDivisionError, RuntimeError])
    def test_other_errors_keep_their_traceback(self, error):
        @report_errors
        def main():
            raise error

        with pytest.raises(error):
            main()

    def test_nothing_happens_without_an_error(self):
        calls = []
        report_errors(lambda: calls.append(1))()
        assert calls == [1]

    def test_a_tool_prints_one_message_and_ends_with_1(self, tmp_path):
        text = CONFIG + "train_dataloader = dict(dataset=dict(type='CocoDataset', ann_file='nowhere.json'))\n"
        (tmp_path / 'some_config.py').write_text(text)
        env = {k: v for k, v in os.environ.items() if k != 'MMRKD_DEBUG'}
        result = subprocess.run(
            [sys.executable, '-W', 'ignore', str(ROOT / 'tools' / 'train.py'), str(tmp_path / 'some_config.py')],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert result.returncode == 1
        message = result.stderr[result.stderr.index('FaultError') :]
        assert '[missing-annotations] train_dataloader: nowhere.json' in message
        assert 'Traceback' not in result.stderr
        assert not (tmp_path / 'work_dirs').exists()
