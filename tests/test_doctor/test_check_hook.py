from copy import deepcopy

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from mmrkd.doctor import CheckHook, FaultError, train_checked
from mmrkd.engine.compose import compose
from mmrkd.engine.launch import build_runner
from mmrkd.engine.prepare import prepare_config


@pytest.fixture
def run(squares, tmp_path):
    """Returns a function that makes the config of a run that draws random numbers everywhere it can."""

    def run(name, method='era', **changes):
        cfg = compose(Config.fromfile(squares.student), squares.teacher, squares.ckpt, [method])
        cfg = Config(deepcopy(cfg._cfg_dict))
        cfg.train_dataloader.dataset.pipeline[2:2] = [
            dict(type='RandomFlip', prob=0.5),
            dict(type='PhotoMetricDistortion'),
        ]
        options = dict(work_dir=str(tmp_path / name), experiment_name=f'{tmp_path.name} {name}', launcher='none')
        cfg.merge_from_dict({**options, **changes})
        return cfg

    return run


def weights(runner):
    return {**runner.model.state_dict(), 'teacher': runner.model.teacher.fingerprint()}


class Watch(Hook):
    """Keeps what is said, and what the model is, before the first iteration."""

    priority = 'VERY_LOW'

    def before_train(self, runner):
        self.before = deepcopy(runner.model.state_dict())

    def before_train_epoch(self, runner):
        self.after = deepcopy(runner.model.state_dict())


def test_the_training_is_the_same_bit_for_bit(run):
    checked = build_runner(prepare_config(run('checked')))
    hook, watch = CheckHook(), Watch()
    checked.register_hook(hook)
    checked.register_hook(watch)
    checked.train()
    plain = build_runner(prepare_config(run('plain')))
    plain.train()
    assert hook.passed
    found, expected = weights(checked), weights(plain)
    assert found.pop('teacher') == expected.pop('teacher')
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert all(torch.equal(watch.after[key], watch.before[key]) for key in watch.before)
    assert any(not torch.equal(found[key], watch.before[key]) for key in found)


def test_what_it_says_stands_in_the_log(run, tmp_path):
    train_checked(run('logged', 'fitnets'))
    log = next((tmp_path / 'logged').glob('*/*.log')).read_text()
    for words in (
        'pre-flight check',
        'wiring:',
        'fitnets.loss_feat',
        'the teacher on 8 validation images',
        'no problem',
    ):
        assert words in log
    assert (tmp_path / 'logged' / 'epoch_1.pth').exists()


def test_a_fault_can_be_accepted(run):
    cfg = run('ignored', 'fitnets', **{'model.methods': []})
    with pytest.raises(FaultError, match='no-method'):
        train_checked(deepcopy(cfg))
    cfg.experiment_name += ' again'
    train_checked(cfg, ignore=['no-method'])


def test_a_plain_config_is_trained_as_it_is(squares, tmp_path):
    cfg = Config.fromfile(squares.student)
    cfg.merge_from_dict(dict(work_dir=str(tmp_path), experiment_name=tmp_path.name))
    train_checked(cfg)
    assert (tmp_path / 'epoch_1.pth').exists()


def test_errors_that_are_no_faults_are_raised_as_they_are(run):
    cfg = run('other', 'fitnets', custom_hooks=[dict(type='NoSuchHook')])
    with pytest.raises(KeyError, match='NoSuchHook'):
        train_checked(cfg)
