import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmrkd.checkpoint import METHOD_STATE
from mmrkd.engine import PhaseHook
from mmrkd.testing import paired, tiny_classifier

PHASED = dict(type='mmrkd.ResidualKD', scheme='progressive', phase_epochs=(2, 4))


class Phases(Hook):
    """Notes the phase of each iteration, and how many parameters learn in it."""

    def __init__(self):
        self.seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        learning = sum(p.requires_grad for p in runner.model.parameters())
        self.seen.append((runner.model.methods[0].phase, learning))


@pytest.fixture(scope='module')
def phased_cfg(run_cfg):
    """Six epochs of one iteration, two for each phase."""

    def phased_cfg(work_dir, method=PHASED, **changes):
        cfg = run_cfg(work_dir, methods=[method])
        cfg.model.student = Config(dict(model=paired(tiny_classifier(), 6, 3))).model
        cfg.custom_hooks.append(dict(type='mmrkd.PhaseHook'))
        cfg.train_cfg.update(max_epochs=6, val_interval=3)
        cfg.train_dataloader.batch_size = 8
        cfg.param_scheduler = dict(type='MultiStepLR', milestones=[3])
        cfg.merge_from_dict(changes)
        return cfg

    return phased_cfg


@pytest.fixture(scope='module')
def finished(phased_cfg, tmp_path_factory):
    folder, phases = tmp_path_factory.mktemp('phased'), Phases()
    runner = Runner.from_cfg(phased_cfg(folder))
    runner.register_hook(phases)
    runner.train()
    return SimpleNamespace(folder=folder, state=runner.model.state_dict(), seen=phases.seen)


def test_phases_follow_each_other(finished):
    assert [phase for phase, _ in finished.seen] == ['student'] * 2 + ['assistant'] * 2 + ['head'] * 2
    student, assistant, head = (finished.seen[epoch][1] for epoch in (0, 2, 4))
    assert head == 2 < assistant and student == assistant + 2, 'S has phi, as A has psi, and P beside it'


def weights_of(folder, epoch):
    checkpoint = torch.load(folder / f'epoch_{epoch}.pth', weights_only=False)
    return {**checkpoint['state_dict'], **checkpoint[METHOD_STATE]['state_dict']}


@pytest.mark.parametrize(
    'start, end, learning',
    [
        (1, 2, lambda name: 'backbone.student' in name or '.student.' in name or 'methods' in name),
        (2, 4, lambda name: 'assistant' in name or 'standardizer' in name),
        (4, 6, lambda name: name.startswith('head')),
    ],
)
def test_between_two_checkpoints_of_a_phase_only_its_part_moves(finished, start, end, learning):
    before, after = weights_of(finished.folder, start), weights_of(finished.folder, end)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(learning(name) for name in moved), [name for name in moved if not learning(name)]
    assert start == 4 or any(name.endswith('running_mean') for name in moved)


@pytest.mark.parametrize('epoch', [1, 2, 3, 4, 5])
def test_it_resumes_in_each_phase_and_between_them_to_the_same_end(finished, phased_cfg, tmp_path, epoch):
    cfg = phased_cfg(tmp_path, resume=True, load_from=str(finished.folder / f'epoch_{epoch}.pth'))
    cfg.default_hooks.checkpoint = None
    phases, runner = Phases(), Runner.from_cfg(cfg)
    runner.register_hook(phases)
    runner.train()
    assert phases.seen == finished.seen[epoch:]
    found = runner.model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in finished.state.items())


class Ramp(Hook):
    """Notes what a method is told of the progress, and the term that goes by it."""

    def __init__(self):
        self.seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        (method,) = runner.model.methods.values()
        term = outputs.get('sskd.loss_ss', outputs.get('tred.loss_reg'))
        self.seen.append((*method.progress, None if term is None else float(torch.as_tensor(term).detach())))


RAMPED = {
    'first': dict(type='mmrkd.SSKD', schedule='first', head_epochs=3),
    'beside': dict(type='mmrkd.SSKD', head_epochs=2),
    'tred': dict(type='mmrkd.TRED', begin=2.0),
}


class TestRamps:
    """Six epochs of one iteration: a method that waits for an epoch, and is interrupted before and behind it."""

    @pytest.fixture(scope='class')
    def run(self, run_cfg, tmp_path_factory):
        def run(name, folder=None, **changes):
            folder = folder or tmp_path_factory.mktemp(name)
            cfg = run_cfg(folder, methods=[RAMPED[name]])
            cfg.custom_hooks.append(dict(type='mmrkd.PhaseHook'))
            cfg.train_cfg.update(max_epochs=6, val_interval=6)
            cfg.train_dataloader.batch_size = 8
            cfg.merge_from_dict(changes)
            ramp, runner = Ramp(), Runner.from_cfg(cfg)
            runner.register_hook(ramp)
            runner.train()
            return SimpleNamespace(folder=folder, state=runner.model.state_dict(), seen=ramp.seen)

        return run

    @pytest.mark.parametrize('name', RAMPED)
    def test_it_goes_on_where_it_was(self, run, name):
        whole = run(name)
        told = [seen[:2] for seen in whole.seen]
        assert told == [(e, pytest.approx(e / 6)) for e in range(6)]
        assert all(
            seen[2] == e * whole.seen[1][2] and seen[3] == 6 * whole.seen[1][2] for e, seen in enumerate(whole.seen)
        )
        terms = [term for *_, term in whole.seen]
        if name == 'first':
            assert terms[:3] == [None] * 3 and min(terms[3:]) > 0
        else:
            assert terms[:3] == [0, 0, 0] and min(terms[3:]) > 0
        for epoch in (2, 4):
            start = str(whole.folder / f'epoch_{epoch}.pth')
            rest = run(name, resume=True, load_from=start, default_hooks=dict(checkpoint=None))
            assert rest.seen == whole.seen[epoch:]
            assert all(torch.equal(rest.state[key], value) for key, value in whole.state.items())
        plain = torch.load(whole.folder / 'epoch_6.pth', weights_only=False)['state_dict']
        assert list(plain) == [key for key in whole.state if not key.startswith('methods.')]


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(train_cfg=dict(by_epoch=True, max_epochs=4)), 'leaves no epoch to the last phase'),
        (dict(train_cfg=dict(_delete_=True, by_epoch=False, max_iters=6)), 'IterBasedTrainLoop does not count them'),
    ],
)
def test_schedules_without_room_for_the_phases_are_refused(phased_cfg, tmp_path, changes, message):
    cfg = phased_cfg(tmp_path)
    cfg.train_cfg = {k: v for k, v in changes['train_cfg'].items() if k != '_delete_'}
    cfg.param_scheduler = None
    with pytest.raises(ValueError, match=message):
        Runner.from_cfg(cfg).train()


def test_it_leaves_other_methods_and_plain_models_alone():
    runner = SimpleNamespace(model=torch.nn.Linear(1, 1), train_loop=None, epoch=0, logger=logging.getLogger())
    hook = PhaseHook()
    hook.before_train(runner)
    hook.before_train_epoch(runner)
    hook.before_train_iter(runner, 0)
    assert runner.model.training
