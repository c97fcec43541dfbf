import copy

import pytest
import torch
import torch.nn.functional as F
from reference import second_teacher, task_total

from mmrkd.models.heads import TeacherHead
from mmrkd.models.heads.teacher_head import sum_losses
from mmrkd.models.teacher import FrozenTeacher
from mmrkd.structures import Level, TeacherView, match_levels
from mmrkd.testing import classification_batch, detection_batch, model_inputs

PYRAMID = ((8, 12), (16, 6), (32, 3), (64, 2))  # stride and cells of an image of 96 pixels


def maps(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 24, cells, cells, generator=generator) for _, cells in PYRAMID[:count]]


def detection_head(teacher, own, theirs):
    """A head on levels ``own`` of the student, for a teacher that has levels ``theirs``."""
    frozen = FrozenTeacher(**teacher)
    student, others = ([Level(c, PYRAMID[i][0]) for i in levels] for c, levels in ((16, own), (24, theirs)))
    return TeacherHead(frozen, match_levels(student, others))


def view(feats):
    return TeacherView(torch.zeros(2, 3, 96, 96), tuple(feats), tuple(feats), None)


def samples_of(model, batch):
    return model_inputs(model, batch)[1]


def test_loss_of_a_classifier_is_cross_entropy_of_its_last_layer(wide_classifier):
    teacher, model = FrozenTeacher(**wide_classifier), second_teacher(wide_classifier, double=False)
    head = TeacherHead(teacher, match_levels([Level(64, None)], [Level(128, None)]))
    samples = samples_of(model, classification_batch(5))
    labels = torch.tensor([sample.gt_label.item() for sample in samples])
    estimate = torch.randn(5, 128, requires_grad=True)
    loss, outputs = head.loss([estimate], view([torch.zeros(5, 128)]), samples)
    logits = F.linear(estimate, model.head.fc.weight, model.head.fc.bias)
    torch.testing.assert_close(outputs, logits)
    expected = F.cross_entropy(logits, labels)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    found = torch.autograd.grad(loss, estimate)[0]
    torch.testing.assert_close(found, torch.autograd.grad(expected, estimate)[0])


def test_loss_of_a_detector_is_that_of_its_head(wide_retinanet):
    head, model = detection_head(wide_retinanet, (0, 1, 2), (0, 1, 2)), second_teacher(wide_retinanet, double=False)
    samples = samples_of(model, detection_batch())
    estimates = [f.requires_grad_() for f in maps(3, seed=1)]
    loss, outputs = head.loss(estimates, view(maps(3, seed=2)), samples)
    expected = task_total(model.bbox_head.loss(tuple(estimates), samples))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for found, scores in zip(outputs[0], model.bbox_head(estimates)[0]):
        torch.testing.assert_close(found, scores)
    expected_gradients = torch.autograd.grad(expected, estimates)
    for found, gradient in zip(torch.autograd.grad(loss, estimates), expected_gradients):
        assert gradient.abs().max() > 0
        torch.testing.assert_close(found, gradient)


def test_levels_without_an_estimate_are_the_teachers_own(deep_retinanet):
    head, model = detection_head(deep_retinanet, (1, 2), (0, 1, 2, 3)), second_teacher(deep_retinanet, double=False)
    samples = samples_of(model, detection_batch())
    estimates, own = [f.requires_grad_() for f in maps(4, seed=1)[1:3]], maps(4, seed=2)
    loss, _ = head.loss(estimates, view(own), samples)
    expected = task_total(model.bbox_head.loss((own[0], *estimates, own[3]), samples))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert abs(expected - task_total(model.bbox_head.loss(tuple(own), samples))) > 1e-3


def test_predictions_come_from_estimates_alone(wide_retinanet):
    head, model = detection_head(wide_retinanet, (0, 1, 2, 3), (0, 1, 2)), second_teacher(wide_retinanet, double=False)
    samples = samples_of(model, detection_batch())
    estimates = maps(3, seed=1)
    with torch.no_grad():
        expected = model.bbox_head.predict(tuple(estimates), samples, rescale=True)
    found = head.predict(lambda _: estimates, torch.zeros(2, 3, 96, 96), copy.deepcopy(samples))
    for sample, instances in zip(found, expected):
        assert len(instances) > 0
        torch.testing.assert_close(sample.pred_instances.scores, instances.scores)
        torch.testing.assert_close(sample.pred_instances.bboxes, instances.bboxes)
    for scores, other in zip(head.outputs(estimates)[0], model.bbox_head(estimates)[0]):
        torch.testing.assert_close(scores, other)
        assert not scores.requires_grad


@pytest.mark.parametrize('own', [(0, 1, 2), (2, 3)])
def test_predictions_need_every_level_of_the_teacher(deep_retinanet, own):
    head = detection_head(deep_retinanet, own, (0, 1, 2, 3))
    estimates = [maps(4, seed=1)[i] for i in own]
    for call in (
        lambda: head.outputs(estimates),
        lambda: head.predict(lambda _: estimates, torch.zeros(2, 3, 96, 96), []),
    ):
        with pytest.raises(ValueError) as error:
            call()
        message = str(error.value)
        assert "cannot run on the student's features alone" in message
        assert 'stride 8, 24ch; stride 16, 24ch; stride 32, 24ch; stride 64, 24ch' in message
        assert '; '.join(f'stride {PYRAMID[i][0]}, 16ch' for i in own) in message


def test_it_owns_no_weights(wide_retinanet):
    head = detection_head(wide_retinanet, (0, 1, 2), (0, 1, 2))
    assert list(head.parameters()) == [] and list(head.buffers()) == [] and len(head.state_dict()) == 0
    head.train()
    assert not head.teacher.model.bbox_head.training
    head.requires_grad_(True)
    assert not any(p.requires_grad for p in head.teacher.model.parameters())


def test_it_leaves_the_model_as_it_was(wide_retinanet):
    head = detection_head(wide_retinanet, (0, 1, 2), (0, 1, 2))
    model, before = head.teacher.model, head.teacher.fingerprint()
    samples = samples_of(model, detection_batch())
    loss, _ = head.loss([f.requires_grad_() for f in maps(3, seed=1)], view(maps(3, seed=2)), samples)
    loss.backward()
    assert all(p.grad is None for p in model.parameters())
    assert head.teacher.fingerprint() == before
    assert 'extract_feat' not in vars(model) and not model.bbox_head._forward_hooks
    broken = [torch.zeros(2, 5, *f.shape[2:]) for f in maps(3, seed=1)]
    with pytest.raises(RuntimeError):
        head.loss(broken, view(maps(3, seed=2)), samples)
    assert 'extract_feat' not in vars(model) and not model.bbox_head._forward_hooks


def test_losses_are_summed_as_the_runner_does():
    losses = dict(
        loss_cls=[torch.tensor(1.0), torch.tensor([2.0, 4.0])],  # 1 + 3
        loss_bbox=torch.tensor(0.5),
        acc=torch.tensor(90.0),
        loss_mask=torch.tensor([1.0, 2.0], dtype=torch.bfloat16),  # 1.5
    )
    found = sum_losses(losses)
    assert found.item() == 6.0 and found.dtype == torch.float32 and found.dim() == 0
