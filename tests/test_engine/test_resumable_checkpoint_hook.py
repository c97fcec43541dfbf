import errno
import os
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmrkd.checkpoint import RUN_STATE, load_checkpoint_file
from mmrkd.engine import prepare_config
from mmrkd.engine.checkpoint_backend import CheckpointBackend
from mmrkd.engine.hooks import ResumableCheckpointHook
from mmrkd.engine.random_state import capture_random_state, restore_random_state
from mmrkd.export import plain_config
from mmrkd.testing import save_random_teacher, tiny_classifier


class TestRandomState:
    def draw(self):
        return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(()).item()

    def test_the_same_numbers_come_again(self):
        random.gauss(0, 1), np.random.randn()  # each leaves a second number for later
        state = capture_random_state()
        expected = self.draw(), self.draw()
        restore_random_state(state)
        assert (self.draw(), self.draw()) == expected

    def test_it_survives_a_file_that_is_read_without_running_code(self, tmp_path):
        torch.save(dict(state_dict=dict(a=torch.zeros(1)), run=[capture_random_state()]), tmp_path / 'a.pth')
        expected = self.draw()
        restore_random_state(load_checkpoint_file(str(tmp_path / 'a.pth'))['run'][0])
        assert self.draw() == expected


class TestBackend:
    def test_a_file_is_written_whole(self, tmp_path):
        CheckpointBackend().put(b'new', str(tmp_path / 'deep' / 'a.pth'))
        assert (tmp_path / 'deep' / 'a.pth').read_bytes() == b'new'
        assert [path.name for path in (tmp_path / 'deep').iterdir()] == ['a.pth']

    def test_if_the_disk_is_full_the_old_file_stays_and_no_part_of_the_new(self, tmp_path, monkeypatch):
        (tmp_path / 'a.pth').write_bytes(b'old')
        monkeypatch.setattr(os, 'fsync', full_disk)
        with pytest.raises(OSError, match='No space left'):
            CheckpointBackend().put(b'new', str(tmp_path / 'a.pth'))
        assert (tmp_path / 'a.pth').read_bytes() == b'old'
        assert [path.name for path in tmp_path.iterdir()] == ['a.pth']

    def test_removal_waits(self, tmp_path):
        (tmp_path / 'a.pth').write_bytes(b'old')
        backend = CheckpointBackend()
        backend.remove(str(tmp_path / 'a.pth'))
        assert (tmp_path / 'a.pth').exists()
        backend.remove_outdated()
        assert not (tmp_path / 'a.pth').exists() and backend.outdated == []


def full_disk(_file):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class TestFullDisk:
    """The second of three epochs cannot be saved."""

    def cfg(self, run_cfg, folder, **checkpoint):
        cfg = run_cfg(folder, **{'train_cfg.max_epochs': 3})
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        cfg.default_hooks.checkpoint.update(max_keep_ckpts=1, **checkpoint)
        return prepare_config(cfg)

    @pytest.fixture
    def full_the_second_time(self, monkeypatch):
        writes = []

        def fsync(file):
            writes.append(1)
            if len(writes) == 2:
                full_disk(file)

        monkeypatch.setattr(os, 'fsync', fsync)

    def test_training_stops_and_the_previous_checkpoint_is_intact(self, run_cfg, train, tmp_path, full_the_second_time):
        with pytest.raises(OSError) as error:
            train(self.cfg(run_cfg, tmp_path))
        assert error.value.errno == errno.ENOSPC
        assert 'could not be written' in str(error.value) and '--resume' in str(error.value)
        assert [path.name for path in tmp_path.glob('*.pth*')] == ['epoch_1.pth']
        assert load_checkpoint_file(str(tmp_path / 'epoch_1.pth'))['meta']['iter'] == 2
        assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_1.pth')

    def test_training_goes_on_by_option(self, run_cfg, train, tmp_path, full_the_second_time):
        cfg = self.cfg(run_cfg, tmp_path)
        cfg.default_hooks.checkpoint.on_write_error = 'continue'
        assert train(cfg).iter == 6
        assert [path.name for path in tmp_path.glob('*.pth*')] == ['epoch_3.pth']

    def test_other_options_are_refused(self):
        with pytest.raises(ValueError, match="on_write_error must be 'stop' or 'continue', found 'ignore'"):
            ResumableCheckpointHook(on_write_error='ignore')


class TestStateOfTheRun:
    @pytest.fixture(scope='class')
    def finished(self, run_cfg, train, tmp_path_factory):
        folder = tmp_path_factory.mktemp('finished')
        train(prepare_config(run_cfg(folder)))
        return folder

    def test_what_is_in_the_checkpoint(self, finished, teachers):
        from mmrkd.testing import build_distiller

        state = load_checkpoint_file(str(finished / 'epoch_1.pth'))[RUN_STATE]
        assert sorted(state) == ['random', 'sampler_seed', 'teachers', 'validated']
        assert len(state['random']) == 1 and state['sampler_seed'] == 3 and state['validated'] is False
        distiller = build_distiller(tiny_classifier(), dict(teachers['classifier']), [])
        assert state['teachers'] == dict(default=distiller.teacher.fingerprint())

    def test_another_teacher_is_refused(self, finished, run_cfg, train, tmp_path):
        cfg = run_cfg(tmp_path, resume=True, load_from=str(finished / 'epoch_1.pth'))
        cfg.model.teacher = save_random_teacher(tiny_classifier(12), tmp_path, seed=6)
        with pytest.raises(ValueError, match='cannot resume with another teacher.*Was its file replaced'):
            train(prepare_config(cfg))

    def test_a_teacher_whose_statistics_drift_is_still_the_same(self, run_cfg, train, tmp_path):
        methods = [dict(type='mmrkd.SemiOnlineKD', teacher_bn='train')]
        first = train(prepare_config(run_cfg(tmp_path, methods=methods, **{'train_cfg.max_epochs': 1})))
        saved = load_checkpoint_file(str(tmp_path / 'epoch_1.pth'))[RUN_STATE]['teachers']
        assert saved == dict(default=first.model.teacher.fingerprint())
        assert train(prepare_config(run_cfg(tmp_path, methods=methods, resume=True))).iter == 4

    def runner(self, **sampler):
        loop = SimpleNamespace(dataloader=SimpleNamespace(sampler=SimpleNamespace(**sampler)), told=[])
        loop.continue_from = lambda *told: loop.told.append(told)
        return SimpleNamespace(_resume=True, train_loop=loop, model=torch.nn.Module())

    def test_the_sampler_gets_the_seed_that_it_had(self):
        """Where the config fixes none, each start draws one."""
        runner = self.runner(seed=5)
        checkpoint = {RUN_STATE: dict(random=['state'], sampler_seed=8, validated=True, teacher=None)}
        ResumableCheckpointHook().after_load_checkpoint(runner, checkpoint)
        assert runner.train_loop.dataloader.sampler.seed == 8
        assert runner.train_loop.told == [('state', True)]

    def test_a_checkpoint_of_other_processes_gives_no_random_states_and_says_so(self, capsys):
        runner = self.runner(seed=5)
        checkpoint = {RUN_STATE: dict(random=['a', 'b'], sampler_seed=8, validated=False, teacher=None)}
        ResumableCheckpointHook().after_load_checkpoint(runner, checkpoint)
        assert runner.train_loop.told == [(None, False)]
        assert 'the random states of 2 processes, and this run has 1 process(es)' in capsys.readouterr().out

    def test_a_checkpoint_of_mmengine_is_resumed_and_said_to_differ(self, capsys):
        runner = self.runner(seed=5)
        ResumableCheckpointHook().after_load_checkpoint(runner, {})
        assert runner.train_loop.told == [] and 'no random states' in capsys.readouterr().out

    def test_a_checkpoint_that_is_only_loaded_says_nothing(self, capsys):
        runner = self.runner(seed=5)
        runner._resume = False
        ResumableCheckpointHook().after_load_checkpoint(runner, {})
        assert capsys.readouterr().out == ''


class TestBest:
    @pytest.fixture
    def hook(self):
        return ResumableCheckpointHook(save_best='coco/bbox_mAP', rule='greater')

    def test_a_validation_without_detections_does_not_stop_the_training(self, hook, capsys):
        hook.after_val_epoch(None, {'integrated/coco/bbox_mAP': 0.1})  # mmdet gives nothing for the student
        assert 'the validation gave no coco/bbox_mAP' in capsys.readouterr().out

    def test_a_misspelt_metric_does(self, hook):
        with pytest.raises(ValueError, match="save_best='coco/bbox_mAP'.*'coco/segm_mAP'"):
            hook.after_val_epoch(None, {'coco/segm_mAP': 0.2})

    def test_without_save_best_nothing_is_said(self, capsys):
        ResumableCheckpointHook().after_val_epoch(None, {'coco/segm_mAP': 0.2})
        assert capsys.readouterr().out == ''


class TestPrepared:
    def test_stock_parts_are_replaced_and_put_back(self, run_cfg, tmp_path):
        cfg = prepare_config(run_cfg(tmp_path))
        assert cfg.default_hooks.checkpoint == dict(type='mmrkd.ResumableCheckpointHook', interval=1)
        assert cfg.train_cfg == dict(type='mmrkd.ResumableEpochLoop', max_epochs=2, val_interval=1)
        cfg.default_hooks.checkpoint.on_write_error = 'continue'
        plain = plain_config(cfg)
        assert plain.default_hooks.checkpoint == dict(type='CheckpointHook', interval=1)
        assert plain.train_cfg == dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1)

    def test_by_iterations(self, run_cfg, tmp_path):
        cfg = run_cfg(tmp_path, **{'train_cfg.by_epoch': False})
        assert prepare_config(cfg).train_cfg.type == 'mmrkd.ResumableIterLoop'
        cfg = run_cfg(tmp_path)
        cfg.train_cfg = dict(type='mmengine.runner.IterBasedTrainLoop', max_iters=2)
        assert prepare_config(cfg).train_cfg.type == 'mmrkd.ResumableIterLoop'

    def test_parts_of_the_users_stay(self, run_cfg, tmp_path):
        cfg = run_cfg(tmp_path)
        cfg.default_hooks.checkpoint.type = 'my.CheckpointHook'
        cfg.train_cfg = dict(type='MyLoop')
        prepare_config(cfg)
        assert cfg.default_hooks.checkpoint.type == 'my.CheckpointHook' and cfg.train_cfg.type == 'MyLoop'
        cfg.default_hooks.checkpoint = None
        assert prepare_config(cfg).default_hooks.checkpoint is None

    def test_plain_configs_keep_mmengines(self, run_cfg, tmp_path):
        cfg = prepare_config(run_cfg(tmp_path, plain=True))
        assert cfg.default_hooks.checkpoint.type == 'CheckpointHook' and cfg.train_cfg.by_epoch is True
