"""A distiller in a runner that would lose what its methods learn stops in words, before the first step."""

from copy import deepcopy

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.runner import Runner

from mmrkd.engine import SplitCheckpointHook
from mmrkd.models.attendance import NEEDED
from mmrkd.registry import HOOKS as ALL_HOOKS
from mmrkd.testing import build_distiller, classification_batch, model_inputs, tiny_classifier

HOOKS = tuple(sorted(NEEDED))


def without_hooks(cfg, *kept):
    cfg.custom_hooks = [dict(type=f'mmrkd.{name}') for name in kept]
    return cfg


@pytest.mark.parametrize('kept', [(), HOOKS[:1], HOOKS[1:]])
def test_training_is_refused_with_the_line_to_add(kept, run_cfg, tmp_path):
    runner = Runner.from_cfg(without_hooks(run_cfg(tmp_path), *kept))
    before = {key: value.clone() for key, value in runner.model.state_dict().items()}
    with pytest.raises(RuntimeError) as error:
        runner.train()
    message = str(error.value)
    assert "runner_type = 'mmrkd.Runner'" in message
    assert all((name in message) == (name not in kept) for name in HOOKS)
    student = {k: v for k, v in runner.model.state_dict().items() if 'running' in k or 'num_batches' in k}
    assert all(torch.equal(v, before[k]) for k, v in student.items()), 'a step was taken'
    assert not list(tmp_path.glob('*.pth'))


@pytest.mark.parametrize('call', ['val', 'test'])
def test_so_is_a_test_of_what_methods_trained(call, run_cfg, tmp_path):
    """It would be one of random weights; the student and the teacher are whole in any runner."""
    for variant in ('student', 'teacher'):
        metrics = getattr(Runner.from_cfg(without_hooks(run_cfg(tmp_path, **{'model.variant': variant}))), call)()
        assert 'tiny/score' in metrics
    runner = Runner.from_cfg(without_hooks(run_cfg(tmp_path, **{'model.variant': 'integrated'})))
    with pytest.raises(RuntimeError, match='would not save and restore its methods'):
        getattr(runner, call)()


def test_without_methods_too(run_cfg, tmp_path):
    """Its checkpoints are plain, but the names in them are said by the hooks."""
    with pytest.raises(RuntimeError, match='SplitCheckpointHook'):
        Runner.from_cfg(without_hooks(run_cfg(tmp_path, methods=()))).train()


def test_a_loop_that_is_written_by_hand_is_left_alone(teachers):
    distiller = build_distiller(tiny_classifier(), dict(teachers['classifier']), [dict(type='mmrkd.FitNets')])
    inputs, samples = model_inputs(distiller, classification_batch())
    assert distiller(inputs, deepcopy(samples), mode='loss')
    MessageHub.get_current_instance().update_info('iter', 3)
    assert distiller(inputs, deepcopy(samples), mode='loss')
    assert distiller.eval()(inputs, samples, mode='predict')


def test_with_both_hooks_it_trains(run_cfg, train, tmp_path):
    assert train(run_cfg(tmp_path)).iter == 4


def test_so_it_does_with_a_hook_that_extends_one(run_cfg, tmp_path):
    ALL_HOOKS.register_module(module=type('MySplitHook', (SplitCheckpointHook,), {}), force=True)
    runner = Runner.from_cfg(without_hooks(run_cfg(tmp_path), 'MySplitHook', 'MergeCheckpointHook'))
    runner.train()
    assert runner.iter == 4


class TestHooksThatMethodsNeed:
    """A method that would silently train something else without a hook says so before the first step."""

    WAITING = dict(type='mmrkd.ERA', num_branches=2, start_branches=1)

    def test_branches_that_would_wait_for_ever(self, run_cfg, train, tmp_path):
        with pytest.raises(ValueError, match="era needs a ExpandHook, and the run has none: add dict.type='mmrkd.E"):
            train(run_cfg(tmp_path, methods=(self.WAITING,)))
        assert not list(tmp_path.glob('*.pth'))

    def test_with_the_hook_they_join_in(self, run_cfg, train, tmp_path):
        cfg = run_cfg(tmp_path, methods=(self.WAITING,))
        cfg.custom_hooks.append(dict(type='mmrkd.ExpandHook', at=[1]))
        assert train(cfg).model.methods['era'].active_branches == 2

    def test_a_subclass_of_the_hook_will_do(self, run_cfg, train, tmp_path):
        from mmrkd.engine import ExpandHook
        from mmrkd.registry import HOOKS

        HOOKS.register_module(module=type('MyExpandHook', (ExpandHook,), {}), force=True)
        cfg = run_cfg(tmp_path, methods=(self.WAITING,))
        cfg.custom_hooks.append(dict(type='mmrkd.MyExpandHook', at=[1]))
        assert train(cfg).iter == 4
