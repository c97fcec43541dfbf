"""Teachers one after the other in one run that can be resumed."""

import pytest
import torch
from mmengine.hooks import Hook

from mmrkd.engine.hooks import TeacherSequenceHook
from mmrkd.testing import save_random_teacher, tiny_classifier


@pytest.fixture
def cfg_of(run_cfg, teachers, tmp_path):
    other = save_random_teacher(tiny_classifier(10), tmp_path, seed=9)

    def cfg_of(folder, at=1.5, **changes):
        methods = [dict(type='mmrkd.FitNets', teacher=['small', 'big'])]
        cfg = run_cfg(folder, methods=methods, **changes)
        cfg.model.teachers = dict(small=other, big=cfg.model.pop('teacher'))
        cfg.custom_hooks.append(dict(type='mmrkd.TeacherSequenceHook', order=['small', 'big'], at=[at]))
        return cfg

    return cfg_of


class Terms(Hook):
    priority = 'LOWEST'

    def __init__(self):
        self.seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.seen.append({name.split('.')[0] for name in outputs if '.' in name})


def trained(cfg):
    from mmengine.runner import Runner

    runner, terms = Runner.from_cfg(cfg), Terms()
    runner.register_hook(terms)
    runner.train()
    return runner, terms.seen


@pytest.mark.parametrize('at, turns', [(0.5, [1, 3]), (1.0, [2, 2]), (1.5, [3, 1])])
def test_each_has_its_turn(cfg_of, at, turns, tmp_path):
    seen = trained(cfg_of(tmp_path / 'run', at))[1]
    assert seen == [{'fitnets_small'}] * turns[0] + [{'fitnets_big'}] * turns[1]


@pytest.mark.parametrize('at', [0.5, 1.0, 1.5])
def test_a_resumed_run_goes_on_with_the_teacher_that_was_there(cfg_of, at, tmp_path):
    whole = trained(cfg_of(tmp_path / 'whole', at))[0].model.state_dict()
    ckpt = str(tmp_path / 'whole' / 'epoch_1.pth')
    found = trained(cfg_of(tmp_path / 'run', at, resume=True, load_from=ckpt))[0].model.state_dict()
    assert found.keys() == whole.keys() and all(torch.equal(found[k], v) for k, v in whole.items())


def test_both_teachers_are_hashed(cfg_of, tmp_path):
    checkpoint = torch.load(self_checkpoint(cfg_of, tmp_path), weights_only=False)
    assert set(checkpoint['mmrkd_run']['teachers']) == {'small', 'big'}


def self_checkpoint(cfg_of, tmp_path):
    cfg = cfg_of(tmp_path / 'run')
    cfg.default_hooks.checkpoint.type = 'mmrkd.ResumableCheckpointHook'
    trained(cfg)
    return tmp_path / 'run' / 'epoch_1.pth'


def test_another_teacher_is_refused_when_resuming(cfg_of, tmp_path):
    path = self_checkpoint(cfg_of, tmp_path)
    cfg = cfg_of(tmp_path / 'again', resume=True, load_from=str(path))
    cfg.default_hooks.checkpoint.type = 'mmrkd.ResumableCheckpointHook'
    cfg.model.teachers.small = save_random_teacher(tiny_classifier(10), tmp_path, seed=10)
    with pytest.raises(ValueError, match=r'another teacher \(small\)'):
        trained(cfg)


@pytest.mark.parametrize(
    'arguments', [dict(order=['a', 'b'], at=[]), dict(order=['a', 'b', 'c'], at=[2, 1]), dict(order=['a', 'a'], at=[1])]
)
def test_numbers_that_do_not_fit_are_refused(arguments):
    with pytest.raises(ValueError, match='different teachers and ascending milestones'):
        TeacherSequenceHook(**arguments)


def test_a_teacher_that_no_method_listens_to_is_refused(cfg_of, tmp_path):
    cfg = cfg_of(tmp_path / 'run')
    cfg.model.methods = [dict(type='mmrkd.FitNets', teacher='small')]
    with pytest.raises(ValueError, match=r"no method listens to the teachers \['big'\]"):
        trained(cfg)


class Moments(Hook):
    """Notes before each iteration whether the optimiser remembers anything."""

    priority = 'LOWEST'

    def __init__(self):
        self.seen = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.seen.append(bool(runner.optim_wrapper.optimizer.state))


@pytest.mark.parametrize('at', [1.0, 1.5])
@pytest.mark.parametrize('restart', [False, True])
def test_the_optimiser_may_begin_anew(cfg_of, restart, at, tmp_path):
    from mmengine.runner import Runner

    cfg = cfg_of(tmp_path / 'run', at)
    cfg.custom_hooks[-1]['restart_optimizer'] = restart
    runner, moments = Runner.from_cfg(cfg), Moments()
    runner.register_hook(moments)
    runner.train()
    assert moments.seen == [False] + [not (restart and index == 2 * at) for index in (1, 2, 3)]


@pytest.mark.parametrize('at', [1.0, 1.5])
def test_a_run_that_is_resumed_where_it_begins_anew_ends_with_the_same_weights(cfg_of, at, tmp_path):
    def cfg_with(folder, **changes):
        cfg = cfg_of(folder, at, **changes)
        cfg.custom_hooks[-1]['restart_optimizer'] = True
        return cfg

    whole = trained(cfg_with(tmp_path / 'whole'))[0].model.state_dict()
    plain = trained(cfg_of(tmp_path / 'plain', at))[0].model.state_dict()
    assert any(not torch.equal(plain[k], v) for k, v in whole.items())
    ckpt = str(tmp_path / 'whole' / 'epoch_1.pth')
    found = trained(cfg_with(tmp_path / 'run', resume=True, load_from=ckpt))[0].model.state_dict()
    assert all(torch.equal(found[k], v) for k, v in whole.items())
