import copy

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from torch import nn

from mmrkd.models import DistillMethod
from mmrkd.models.loss_guard import LossGuard
from mmrkd.testing import (
    build_distiller,
    classification_batch,
    detection_batch,
    model_inputs,
    tiny_classifier,
    tiny_retinanet,
)


class Sample:
    def __init__(self, **names):
        self.__dict__.update(names)


SAMPLES = [Sample(img_path='a.jpg', img_id=1), Sample(img_id=7), Sample()]


@pytest.fixture
def parameter():
    return nn.Parameter(torch.tensor([2.0, 3.0]))


class TestAlone:
    def test_finite_losses_pass_as_they_are(self, parameter):
        losses = dict(loss_cls=torch.ones(()), loss_list=[torch.zeros(()), torch.ones(2)], acc=torch.tensor(torch.nan))
        assert LossGuard()(losses, SAMPLES, [parameter]) is losses

    def test_late_it_names_the_step_that_it_was_and_not_the_one_that_it_is(self, parameter):
        guard, hub = LossGuard(late=True), MessageHub.get_instance('run')
        good, bad = dict(loss=torch.ones(())), {'loss': torch.ones(()), 'kd.loss_kd': torch.tensor(torch.inf)}
        hub.update_info('iter', 6)
        assert guard(bad, SAMPLES, [parameter]) is bad
        hub.update_info('iter', 7)
        with pytest.raises(ValueError) as error:
            guard(good, SAMPLES[1:], [parameter])
        assert "not finite at iteration 6: kd.loss_kd. The images: ['a.jpg', 7, 'unnamed']. It was found one" in str(
            error.value
        )
        assert guard(good, SAMPLES, [parameter]) is good  # nothing is said twice

    def test_what_was_not_read_yet_is_read_before_anything_is_saved(self, parameter):
        guard, bad = LossGuard(late=True), dict(loss=torch.tensor(torch.nan))
        guard(bad, SAMPLES, [parameter])
        with pytest.raises(ValueError, match='not finite: loss. The images'):
            guard.settle()
        guard.settle()
        guard(dict(loss=torch.ones(())), SAMPLES, [parameter])
        guard.settle()

    def test_a_copy_of_a_guard_that_waits_waits_for_the_same(self, parameter):
        guard = LossGuard(late=True)
        guard(dict(loss=torch.tensor(torch.nan)), SAMPLES, [parameter])
        with pytest.raises(ValueError, match='not finite'):
            copy.deepcopy(guard).settle()

    @pytest.mark.parametrize('value', [torch.nan, torch.inf, -torch.inf])
    def test_the_message_names_the_terms_the_iteration_and_the_images(self, parameter, value):
        MessageHub.get_instance('run').update_info('iter', 41)
        bad = torch.tensor(value)
        losses = {'loss_cls': torch.ones(()), 'era.loss_res_2': bad, 'loss_list': [torch.ones(()), bad]}
        with pytest.raises(ValueError) as error:
            LossGuard()(losses, SAMPLES, [parameter])
        assert 'not finite at iteration 41: era.loss_res_2, loss_list. ' in str(error.value)
        assert "The images: ['a.jpg', 7, 'unnamed']" in str(error.value)

    def test_a_skipped_step_gives_gradients_of_zero(self, parameter, capsys):
        frozen = nn.Parameter(torch.ones(1), requires_grad=False)
        losses = LossGuard('skip')(dict(loss=parameter.sum() / 0), SAMPLES, [parameter, frozen])
        assert list(losses) == ['loss_skipped'] and losses['loss_skipped'].item() == 0
        losses['loss_skipped'].backward()
        assert parameter.grad.tolist() == [0, 0] and frozen.grad is None
        assert 'not finite: loss. ' in capsys.readouterr().out

    def test_many_in_a_row_stop_and_one_that_is_finite_starts_the_count_again(self, parameter):
        guard = LossGuard('skip', most_in_a_row=2)
        good, bad = dict(loss=torch.ones(())), dict(loss=torch.tensor(torch.nan))
        for losses in (bad, bad, good, bad, bad):
            guard(losses, SAMPLES, [parameter])
        with pytest.raises(ValueError, match='not finite'):
            guard(bad, SAMPLES, [parameter])

    @pytest.mark.parametrize('value', [1.0, torch.nan])
    def test_buffers_are_put_back_where_a_batch_is_left_out_and_only_there(self, value):
        norm, guard = nn.BatchNorm1d(1), LossGuard('skip')
        before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
        identity = [buffer.data_ptr() for buffer in norm.buffers()]
        with guard.watching(norm):
            out = norm(torch.tensor([[value], [3.0]]))
            guard(dict(loss=out.square().sum()), SAMPLES, norm.parameters())
        assert [buffer.data_ptr() for buffer in norm.buffers()] == identity
        found = {name: buffer.tolist() for name, buffer in norm.named_buffers()}
        if value == 1:  # momentum 0.1: mean 2, unbiased variance 2
            assert found == dict(
                running_mean=[pytest.approx(0.2)], running_var=[pytest.approx(1.1)], num_batches_tracked=1
            )
        else:
            assert found == {name: buffer.tolist() for name, buffer in before.items()}

    def test_a_later_step_is_not_undone_by_what_an_earlier_one_remembered(self):
        norm, guard = nn.BatchNorm1d(1), LossGuard('skip')
        with guard.watching(norm):
            norm(torch.tensor([[1.0], [3.0]]))
            guard(dict(loss=torch.ones(())), SAMPLES, norm.parameters())
        guard(dict(loss=torch.tensor(torch.nan)), SAMPLES, norm.parameters())
        assert norm.running_mean.item() == pytest.approx(0.2)

    @pytest.mark.parametrize('option', ['stop', 'ignore'])
    def test_nothing_is_copied_where_nothing_is_put_back(self, option):
        norm, guard = nn.BatchNorm1d(1), LossGuard(option)
        with guard.watching(norm):
            assert guard._before == []

    def test_other_options_are_refused(self):
        with pytest.raises(ValueError, match="on_nonfinite must be 'stop', 'skip' or 'ignore', found 'warn'"):
            LossGuard('warn')


class Overflowing(DistillMethod):
    def losses(self, student, teacher, samples):
        return dict(loss_far=(student.feats[0] * 1e38).square().sum())


class TestInTheDistiller:
    @pytest.fixture
    def distiller(self, wide_retinanet):
        def distiller(**options):
            return build_distiller(tiny_retinanet(), dict(wide_retinanet), [Overflowing()], **options).train()

        return distiller

    def test_the_method_is_named(self, distiller):
        model = distiller()
        with pytest.raises(ValueError, match=r'not finite.*: overflowing.loss_far. The images: \[0, 1\]'):
            model(*model_inputs(model, detection_batch()), mode='loss')

    def test_a_step_that_is_skipped_changes_no_weight(self, distiller):
        model = distiller(on_nonfinite='skip')
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        logs = model.train_step(detection_batch(), OptimWrapper(torch.optim.SGD(model.parameters(), lr=1.0)))
        assert logs['loss'].item() == 0
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, before[name]), name

    def test_no_epoch_begins_and_nothing_is_evaluated_before_the_last_step_is_known(self, distiller):
        for stage in ('train', 'eval'):
            model = distiller()
            model.guard.late = True
            model(*model_inputs(model, detection_batch()), mode='loss')
            with pytest.raises(ValueError, match='not finite.*: overflowing.loss_far'):
                getattr(model, stage)()


KINDS = {
    'no method': ('classifier', []),
    'era, norms of MBRNet': ('classifier', [dict(type='mmrkd.ERA')]),
    'era, standardiser': ('classifier', [dict(type='mmrkd.ERA', standardize=True)]),
    'era, a detector': ('retinanet', [dict(type='mmrkd.ERA', neck=dict(norm='BN'))]),
    'a bridge': ('classifier', [dict(type='mmrkd.SemiOnlineKD')]),
    'a peer': ('classifier', [dict(type='mmrkd.DeepMutualLearning')]),
}


class TestASkippedBatch:
    """One pixel of the third batch is NaN."""

    @pytest.fixture(params=KINDS)
    def training(self, request, wide_classifier, wide_retinanet):
        kind, methods = KINDS[request.param]
        student, teacher, batch = {
            'classifier': (tiny_classifier(), wide_classifier, classification_batch),
            'retinanet': (tiny_retinanet(), wide_retinanet, detection_batch),
        }[kind]
        model = build_distiller(student, dict(teacher), methods, on_nonfinite='skip').train()
        batches = [batch(seed=seed) for seed in range(4)]
        for images in batches:
            images['inputs'] = [image.float() for image in images['inputs']]
        batches[2]['inputs'][0][1, 5, 7] = torch.nan
        return model, batches

    def test_leaves_no_trace(self, training):
        model, batches = training
        optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
        for batch in batches[:2]:
            model.train_step(batch, optimizer)
        before = {name: value.clone() for name, value in [*model.named_parameters(), *model.named_buffers()]}
        model.train_step(batches[2], optimizer)
        assert model.guard.skipped == 1
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            assert torch.equal(value, before[name]), name
            assert value.isfinite().all(), name
        model.train_step(batches[3], optimizer)
        assert model.guard.skipped == 0
        moved = [name for name, value in model.named_buffers() if not torch.equal(value, before[name])]
        assert any('running_mean' in name for name in moved)

    def test_and_none_in_what_is_predicted(self, training):
        model, batches = training
        optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
        for batch in batches[:3]:
            model.train_step(batch, optimizer)
        for sample in model.eval().test_step(batches[0]):
            scores = sample.pred_instances.scores if 'pred_instances' in sample else sample.pred_score
            assert len(scores) and scores.isfinite().all()
