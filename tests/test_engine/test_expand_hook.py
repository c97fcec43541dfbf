from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch

from mmrkd.engine import ExpandHook
from mmrkd.models import MultiBranchResidualNeck
from mmrkd.testing import (
    build_distiller,
    classification_batch,
    detection_batch,
    model_inputs,
    save_random_teacher,
    tiny_classifier,
    tiny_retinanet,
)

FAMILIES = {
    'other widths': (tiny_retinanet(), tiny_retinanet(12, 24), detection_batch),
    'equal widths': (tiny_classifier(), tiny_classifier(), classification_batch),
}


@pytest.fixture(params=list(FAMILIES))
def family(request, tmp_path):
    student, teacher, batch = FAMILIES[request.param]
    return student, save_random_teacher(teacher, tmp_path, seed=5), batch


def era(family, **options):
    student, teacher, _ = family
    cfg = dict(type='mmrkd.ERA', w_res=1.0, twi_on='all', **options)
    return build_distiller(deepcopy(student), deepcopy(teacher), [cfg], seed=3).train()


def losses_of(model, family):
    return model(*model_inputs(model, family[2]()), mode='loss')


class TestERA:
    def test_a_new_branch_changes_no_prediction_and_adds_its_own_terms(self, family):
        model = era(family, num_branches=3, start_branches=2)
        method = model.methods[0]
        before = losses_of(deepcopy(model), family)
        method.active_branches = 3
        after = losses_of(deepcopy(model), family)
        assert set(after) - set(before) == {'era.loss_res_3', 'era.loss_twi_3'}
        for step in (1, 2):  # h_i and r_i are what they were; 1/N is 1/3 now
            for term in (f'era.loss_res_{step}', f'era.loss_twi_{step}'):
                torch.testing.assert_close(after[term], before[term] * 2 / 3)
        weights = method.branch_weights  # h_3 = h_2 + 0
        torch.testing.assert_close(after['era.loss_twi_3'] / weights[2], after['era.loss_twi_2'] / weights[1])

    def test_the_integrated_model_is_that_of_the_active_branches(self, family):
        model = era(family, num_branches=3, start_branches=2).eval()
        inputs, _ = model_inputs(model, family[2](), training=False)
        feats = model.pair.student_feats(model.adapter.extract(inputs))
        neck = model.methods[0].neck
        initial, increments = neck.steps(feats, num_branches=2)
        expected = neck.to_teacher_scale([sum(parts, h) for h, *parts in zip(initial, *increments)])
        assert len(increments) == 2
        for found, value in zip(neck(feats), expected):
            assert torch.equal(found, value)

    def test_it_learns_once_it_is_active_and_not_before(self, family):
        model = era(family, num_branches=2, start_branches=1)
        method, optimizer = model.methods[0], torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=0.1)
        waiting = method.neck.parameters_from(1)
        assert {id(p) for p in method.idle_parameters()} == {id(p) for p in waiting} and waiting
        start = [p.detach().clone() for p in waiting]
        for active, moved in ((1, False), (2, True), (2, True)):
            method.active_branches = active
            optimizer.zero_grad()
            model.parse_losses(losses_of(model, family))[0].backward()
            optimizer.step()
            assert any(not torch.equal(p, s) for p, s in zip(waiting, start)) is moved
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in waiting if p.dim() > 1)

    @pytest.mark.parametrize('start', [0, 5])
    def test_impossible_starts_are_refused(self, family, start):
        with pytest.raises(ValueError, match=r'start_branches must be in \[1, 4\]'):
            era(family, num_branches=4, start_branches=start)

    def test_a_shared_closing_layer_is_refused(self):
        neck = MultiBranchResidualNeck(4, 8, num_branches=2, shared_close=True)
        with pytest.raises(ValueError, match='closing layers of their own: shared_close'):
            neck.silence(1)

    def test_shared_blocks_are_not_idle(self):
        neck = MultiBranchResidualNeck(4, 8, num_branches=2, num_blocks=2, shared_blocks=1)
        shared = {id(p) for p in neck.branches[0][0].parameters()}
        waiting = {id(p) for p in neck.parameters_from(1)}
        assert shared and not shared & waiting
        assert waiting == {id(p) for p in [*neck.branches[1][1].parameters(), *neck.closes[1].parameters()]}


class TestHook:
    def runner(self, iteration=0):
        model = torch.nn.Module()
        model.methods = dict(era=SimpleNamespace(num_branches=4, start_branches=2))
        return SimpleNamespace(model=model, iter=iteration, train_dataloader=range(10))

    @pytest.mark.parametrize('iteration, expected', [(0, 2), (19, 2), (20, 3), (39, 3), (40, 4), (99, 4)])
    def test_the_number_follows_from_the_progress(self, iteration, expected):
        runner = self.runner(iteration)
        ExpandHook(at=[2, 4]).before_train_iter(runner, 0)
        assert runner.model.methods['era'].active_branches == expected
        runner = self.runner(iteration)
        ExpandHook(at=[20, 40], by_epoch=False).before_train_iter(runner, 0)
        assert runner.model.methods['era'].active_branches == expected

    def test_milestones_that_do_not_ascend_are_refused(self):
        with pytest.raises(ValueError, match=r'ascending milestones, found \[3, 2\]'):
            ExpandHook(at=[3, 2])

    def test_more_milestones_than_branches_are_refused(self):
        ExpandHook(at=[1, 2]).before_train(self.runner())
        with pytest.raises(ValueError, match='3 milestones, but SimpleNamespace has 2 branches to add'):
            ExpandHook(at=[1, 2, 3]).before_train(self.runner())
