import pytest
import torch
from reference import affine, bernoulli_kl, cross_entropy, reached, second_teacher, softmax_kl

from mmrkd.models.methods import KD
from mmrkd.testing import (
    build_distiller,
    classification_batch,
    detection_batch,
    model_inputs,
    tiny_classifier,
    tiny_gfl,
    tiny_retinanet,
)


def build(student, teacher, batch, **kd):
    distiller = build_distiller(student, teacher, [dict(type='mmrkd.KD', **kd)]).double().train()
    inputs, samples = model_inputs(distiller, batch)
    return distiller, inputs.double(), samples


@pytest.mark.parametrize('kd', [{}, dict(w_kd=0.9, tau=2.0, w_task=0.1)], ids=str)
def test_logits_of_a_classifier(wide_classifier, kd):
    distiller, inputs, samples = build(tiny_classifier(8), wide_classifier, classification_batch(), **kd)
    teacher, labels = second_teacher(wide_classifier), torch.cat([sample.gt_label for sample in samples])
    z_t = teacher.head(teacher.extract_feat(inputs))
    z_s = affine(distiller.student.extract_feat(inputs)[0], dict(distiller.student.named_parameters()), 'head.fc')
    found = distiller.loss(inputs, samples)
    assert set(found) == {'loss', 'kd.loss_kd'}
    expected = kd.get('w_kd', 1.0) * softmax_kl(z_t, z_s, kd.get('tau', 4.0))
    assert found['kd.loss_kd'].item() == pytest.approx(expected.item(), rel=1e-6) and expected > 1e-3
    assert found['loss'].item() == pytest.approx(kd.get('w_task', 1.0) * cross_entropy(z_s, labels).item(), rel=1e-6)
    parameters = list(distiller.student.parameters())
    gradients = (torch.autograd.grad(loss, parameters) for loss in (found['kd.loss_kd'], expected))
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_standardised_logits(wide_classifier, wide_retinanet):
    kd = dict(standardize_logits=True, tau=2.0, w_kd=9.0)
    distiller, inputs, samples = build(tiny_classifier(8), wide_classifier, classification_batch(), **kd)
    teacher = second_teacher(wide_classifier)
    z_t = teacher.head(teacher.extract_feat(inputs))
    z_s = affine(distiller.student.extract_feat(inputs)[0], dict(distiller.student.named_parameters()), 'head.fc')
    z_t, z_s = ((z - z.mean(1, keepdim=True)) / (z.std(1, keepdim=True) + 1e-7) for z in (z_t, z_s))
    found = distiller.loss(inputs, samples)['kd.loss_kd']
    assert found.item() == pytest.approx(9 * softmax_kl(z_t, z_s, 2.0).item(), rel=1e-6)
    assert reached(found, dict(student=list(distiller.student.parameters()))) == {'student'}
    with pytest.raises(ValueError, match=r'KD\(standardize_logits=True\) needs exclusive classes'):
        build(tiny_retinanet(), wide_retinanet, detection_batch(), standardize_logits=True)


def test_dense_logits_and_if_asked_boxes(wide_retinanet):
    distiller, inputs, samples = build(tiny_retinanet(), wide_retinanet, detection_batch(), w_kd=0.5, w_box=2.0)
    teacher = second_teacher(wide_retinanet)

    def flat(levels):
        return torch.cat([x.permute(0, 2, 3, 1).reshape(-1, 4) for x in levels])

    with torch.no_grad():
        (z_t, b_t), (z_s, b_s) = (map(flat, m.bbox_head(m.extract_feat(inputs))) for m in (teacher, distiller.student))
    confidence = z_t.sigmoid().amax(1)
    boxes = (confidence * (b_t - b_s).abs().mean(1)).sum() / confidence.sum().clamp(min=1)
    found = distiller.loss(inputs, samples)
    assert found['kd.loss_kd'].item() == pytest.approx(0.5 * bernoulli_kl(z_t, z_s, 1.0).item(), rel=1e-6)
    assert found['kd.loss_kd_box'].item() == pytest.approx(0.5 * 2.0 * boxes.item(), rel=1e-6)
    parts = dict(student=list(distiller.student.parameters()))
    assert reached(found['kd.loss_kd'], parts) == {'student'}
    assert 'kd.loss_kd_box' not in build(tiny_retinanet(), wide_retinanet, detection_batch())[0].loss(inputs, samples)


def test_it_trains_nothing_of_its_own_and_moves_no_teacher(wide_classifier):
    distiller, inputs, samples = build(tiny_classifier(8), wide_classifier, classification_batch())
    before = distiller.teacher.fingerprint()
    distiller.parse_losses(distiller.loss(inputs, samples))[0].backward()
    assert not list(distiller.methods.parameters()) and tuple(distiller.variants) == ('student', 'teacher')
    assert distiller.teacher.fingerprint() == before
    assert KD().active and not KD(w_kd=0.0).active


def test_heads_that_do_not_line_up_are_refused(wide_retinanet):
    with pytest.raises(ValueError, match='KD compares the outputs of the heads.*do not line up: outputs: student'):
        build_distiller(tiny_gfl(), wide_retinanet, [dict(type='mmrkd.KD')])
