from copy import deepcopy

import pytest
import torch
from reference import affine, cross_entropy, reached, softmax_kl, stir, task_total

from mmrkd.models.methods import DeepMutualLearning
from mmrkd.testing import (
    build_distiller,
    build_model,
    classification_batch,
    detection_batch,
    model_inputs,
    tiny_classifier,
    tiny_gfl,
    tiny_retinanet,
)


def build(student, teacher, batch, **dml):
    distiller = build_distiller(student, teacher, [dict(type='mmrkd.DeepMutualLearning', **dml)]).double().train()
    inputs, samples = model_inputs(distiller, batch)
    return distiller, inputs.double(), samples


def peer_of(distiller, teacher):
    """A plain model with the peer's weights."""
    model = build_model(teacher['cfg']).double()
    model.load_state_dict(distiller.methods[0].peer.model.state_dict(), strict=True)
    return model.train()


def named(losses):
    return {name.replace('deepmutuallearning.', ''): value for name, value in losses.items()}


@pytest.mark.parametrize('tau', [1.0, 3.0])
def test_two_classifiers(wide_classifier, tau):
    distiller, inputs, samples = build(tiny_classifier(8), wide_classifier, classification_batch(6), w_kd=0.5, tau=tau)
    stir(distiller.methods[0].peer.model)
    peer, labels = peer_of(distiller, wide_classifier), torch.cat([sample.gt_label for sample in samples])
    z_p, z_s = (
        affine(model.extract_feat(inputs)[0], dict(model.named_parameters()), 'head.fc')
        for model in (peer, distiller.student)
    )
    expected = {
        'loss': cross_entropy(z_s, labels),
        'loss_peer_task': cross_entropy(z_p, labels),
        'loss_student_peer': 0.5 * softmax_kl(z_s.detach(), z_p, tau),
        'loss_peer_student': 0.5 * softmax_kl(z_p.detach(), z_s, tau),
    }
    found = named(distiller.loss(inputs, samples))
    assert {k: v.item() for k, v in found.items()} == pytest.approx(
        {k: v.item() for k, v in expected.items()}, rel=1e-6
    )
    own = list(distiller.methods[0].peer.parameters())
    gradients = torch.autograd.grad(sum(found.values()), own, retain_graph=True)
    wanted = torch.autograd.grad(sum(expected.values()), list(peer.parameters()), retain_graph=True)
    for a, b in zip(gradients, wanted):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6 * max(1.0, b.abs().max().item()))


def test_two_detectors(wide_retinanet):
    distiller, inputs, samples = build(tiny_retinanet(), wide_retinanet, detection_batch())
    expected = task_total(peer_of(distiller, wide_retinanet).loss(inputs, deepcopy(samples)))
    found = named(distiller.loss(inputs, samples))
    assert found['loss_peer_task'].item() == pytest.approx(expected.item(), rel=1e-6)
    distiller.parse_losses(found)[0].backward()
    assert [n for n, p in distiller.named_parameters() if p.requires_grad and p.grad is None] == []


def test_who_learns_from_whom(wide_classifier):
    distiller, inputs, samples = build(tiny_classifier(8), wide_classifier, classification_batch())
    parts = dict(
        student=list(distiller.student.parameters()), peer=list(distiller.methods[0].parameters())
    )  # fmt: skip
    found = {name: reached(loss, parts) for name, loss in named(distiller.loss(inputs, samples)).items()}
    assert found == {
        'loss': {'student'},
        'loss_peer_task': {'peer'},
        'loss_student_peer': {'peer'},
        'loss_peer_student': {'student'},
    }


def test_nothing_of_the_teacher_enters(wide_classifier):
    """Neither its weights at the start nor its features or outputs later."""
    distiller, inputs, samples = build(tiny_classifier(8), wide_classifier, classification_batch())
    teacher = distiller.teacher.model.state_dict()
    for name, value in distiller.methods[0].peer.model.named_parameters():
        assert value.dim() < 2 or not torch.equal(value, teacher[name]), name
    distiller.teacher.extract = distiller.teacher.outputs = None  # to call them would be an error
    assert len(distiller.loss(inputs, samples)) == 4


def test_predictions_of_the_peer(wide_classifier):
    distiller, inputs, samples = build(tiny_classifier(8), wide_classifier, classification_batch())
    assert tuple(distiller.variants) == ('student', 'teacher', 'peer')
    distiller.teacher.adapter.extract = None
    distiller.eval().set_variant('peer')
    expected = peer_of(distiller, wide_classifier).eval()(inputs, deepcopy(samples), mode='predict')
    found = distiller(inputs, samples, mode='predict')
    assert all(torch.equal(a.pred_score, b.pred_score) for a, b in zip(found, expected))


def test_heads_that_do_not_line_up_are_refused(wide_retinanet):
    with pytest.raises(ValueError, match='DeepMutualLearning compares the outputs.*do not line up'):
        build_distiller(tiny_gfl(), wide_retinanet, [dict(type='mmrkd.DeepMutualLearning')])


def test_without_a_weight_it_does_nothing():
    assert DeepMutualLearning().active and not DeepMutualLearning(w_kd=0.0).active
