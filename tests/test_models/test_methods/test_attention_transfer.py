import pytest
import torch

from mmrkd.testing import (
    build_distiller,
    classification_batch,
    detection_batch,
    model_inputs,
    tiny_classifier,
    tiny_retinanet,
)


def attention(feat):
    """Each sample's sum of squares over channels, divided by its length."""
    q = torch.einsum('nchw,nchw->nhw', feat, feat).flatten(1)
    return q / q.square().sum(1, keepdim=True).sqrt()


def build(student, teacher, batch, **arguments):
    distiller = build_distiller(student, teacher, [dict(type='mmrkd.AttentionTransfer', **arguments)]).double().train()
    inputs, samples = model_inputs(distiller, batch)
    return distiller, inputs.double(), samples


def backbone_maps(distiller, inputs):
    with torch.no_grad():
        return distiller.student.backbone(inputs), distiller.teacher.model.backbone(inputs)


def test_all_stages_of_the_backbones(wide_retinanet):
    distiller, inputs, samples = build(tiny_retinanet(), wide_retinanet, detection_batch(), w_at=7.0)
    pairs = zip(*backbone_maps(distiller, inputs))
    expected = 7 * sum((attention(s) - attention(t)).square().mean() for s, t in pairs)
    found = distiller.loss(inputs, samples)['attentiontransfer.loss_at']
    assert found.item() == pytest.approx(expected.item(), rel=1e-6) and expected > 0


def test_layers_by_name(wide_classifier):
    names = ('backbone.layer2', 'backbone')
    distiller, inputs, samples = build(
        tiny_classifier(8), wide_classifier, classification_batch(), student_layers=names, teacher_layers=names
    )
    maps = [[], []]
    for model, out in zip((distiller.student, distiller.teacher.model), maps):
        x = model.backbone.relu(model.backbone.norm1(model.backbone.conv1(inputs)))
        for index, name in enumerate(('layer1', 'layer2', 'layer3', 'layer4')):
            x = getattr(model.backbone, name)(x)
            out.extend([x] if index in (1, 3) else [])
    expected = 500 * sum((attention(s) - attention(t)).square().mean() for s, t in zip(*maps))
    assert distiller.loss(inputs, samples)['attentiontransfer.loss_at'].item() == pytest.approx(
        expected.item(), rel=1e-6
    )


def test_it_trains_the_student_below_the_tap_and_nothing_else(wide_classifier):
    distiller, inputs, samples = build(tiny_classifier(8), wide_classifier, classification_batch())
    distiller.loss(inputs, samples)['attentiontransfer.loss_at'].backward()
    assert all(p.grad is not None for p in distiller.student.backbone.parameters())
    assert all(p.grad is None for p in distiller.student.head.parameters())
    assert all(p.grad is None for p in distiller.teacher.model.parameters())
    assert list(distiller.methods[0].parameters()) == []


def test_what_does_not_pair_up_is_refused(wide_classifier):
    with pytest.raises(ValueError, match='as many layers of the teacher'):
        build(tiny_classifier(), wide_classifier, classification_batch(), student_layers=('backbone', 'neck'))
    with pytest.raises(ValueError, match='no maps of the same stride'):
        build(tiny_classifier(), wide_classifier, classification_batch(), student_layers=('backbone.layer1',))
    with pytest.raises(KeyError, match='layer4'):
        build(tiny_classifier(), wide_classifier, classification_batch(), student_layers=('backbone.layer5',))


def test_without_a_weight_it_does_nothing(wide_classifier):
    distiller, inputs, samples = build(tiny_classifier(), wide_classifier, classification_batch(), w_at=0.0)
    distiller.teacher.extract = None  # to call it would be an error
    assert set(distiller.loss(inputs, samples)) == {'loss'}
