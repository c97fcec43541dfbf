import pytest
import torch
from reference import affine, reached, second_teacher
from torch.nn.functional import conv2d

from mmrkd.models.methods import MGD
from mmrkd.structures import StudentView
from mmrkd.testing import (
    build_distiller,
    classification_batch,
    detection_batch,
    model_inputs,
    tiny_classifier,
    tiny_retinanet,
)


def build(student, teacher, batch, **mgd):
    distiller = build_distiller(student, teacher, [dict(type='mmrkd.MGD', **mgd)]).double().train()
    inputs, samples = model_inputs(distiller, batch)
    return distiller, inputs.double(), samples


def errors(method, feats, targets, shapes):
    """The sum of squares per image, with masks drawn in the order of the levels."""
    torch.manual_seed(3)
    total, state = 0, method.state_dict()
    for level, (f, t, shape) in enumerate(zip(feats, targets, shapes)):
        name = f'generators.{level}.layers'
        x = affine(f, state, f'projection.layers.{level}') if f.shape[1] != t.shape[1] else f
        x = x * (torch.rand(shape) >= method.ratio)
        x = conv2d(x, state[f'{name}.0.weight'], state[f'{name}.0.bias'], padding=1).clamp(min=0)
        x = conv2d(x, state[f'{name}.2.weight'], state[f'{name}.2.bias'], padding=1)
        total += ((x - t) ** 2).sum() / len(x)
    return total


def test_levels_of_the_neck(wide_retinanet):
    distiller, inputs, samples = build(tiny_retinanet(), wide_retinanet, detection_batch())
    method, before = distiller.methods[0], distiller.teacher.fingerprint()
    assert (method.w_mgd, method.ratio, method.hidden) == (2e-5, 0.65, 'cells')
    with torch.no_grad():
        feats, targets = (m.extract_feat(inputs) for m in (distiller.student, second_teacher(wide_retinanet)))
        shapes = [(len(f), 1, *f.shape[2:]) for f in feats]
        expected = 2e-5 * errors(method, feats, targets, shapes)
    student, teacher = _views(distiller, inputs, samples)
    torch.manual_seed(3)
    found = method.losses(student, teacher, samples)['loss_mgd']
    assert found.item() == pytest.approx(expected.item(), rel=1e-6) and expected > 1e-3
    losses = distiller.loss(inputs, samples)
    parts = dict(backbone=list(distiller.student.backbone.parameters()), own=list(method.parameters()))
    parts['head'] = list(distiller.student.bbox_head.parameters())
    assert reached(losses['mgd.loss_mgd'], parts) == {'backbone', 'own'}
    distiller.parse_losses(losses)[0].backward()
    assert all(p.grad is not None for p in method.parameters())
    assert all(p.grad is None for p in distiller.teacher.model.parameters())
    assert distiller.teacher.fingerprint() == before


def _views(distiller, inputs, samples):
    with torch.no_grad():
        feats = distiller.student.extract_feat(inputs)
    return StudentView(inputs, feats), distiller.pair.teacher_view(distiller.pair.teacher_pass(inputs, samples), feats)


def test_last_maps_of_classifiers(wide_classifier):
    distiller, inputs, samples = build(tiny_classifier(8), wide_classifier, classification_batch(), w_mgd=0.01)
    method = distiller.methods[0]
    assert (method.w_mgd, method.ratio, method.hidden) == (0.01, 0.15, 'channels')
    with torch.no_grad():
        feats, targets = (m.backbone(inputs) for m in (distiller.student, second_teacher(wide_classifier)))
        expected = 0.01 * errors(method, feats, targets, [(4, 128, 1, 1)])
    torch.manual_seed(3)
    found = distiller.loss(inputs, samples)['mgd.loss_mgd']
    assert found.item() == pytest.approx(expected.item(), rel=1e-6) and expected > 1e-3


def test_first_levels_alone(wide_retinanet):
    distiller, inputs, samples = build(tiny_retinanet(neck_width=24), wide_retinanet, detection_batch(), levels=2)
    assert len(distiller.methods[0].generators) == 2 and not list(distiller.methods[0].projection.parameters())
    losses = distiller.loss(inputs, samples)
    distiller.parse_losses(losses)[0].backward()
    assert losses['mgd.loss_mgd'] > 0 and all(p.grad is not None for p in distiller.methods[0].parameters())


def test_without_a_weight_it_does_nothing(wide_retinanet):
    distiller, inputs, samples = build(tiny_retinanet(), wide_retinanet, detection_batch(), w_mgd=0.0)
    distiller.teacher.extract = None  # to call it would be an error
    assert not [name for name in distiller.loss(inputs, samples) if 'mgd' in name]


@pytest.mark.parametrize(
    'wrong', [dict(w_mgd=-1.0), dict(ratio=0.0), dict(ratio=1.0), dict(hidden='rows'), dict(levels=0)], ids=str
)
def test_arguments_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=f'MGD.*{next(iter(wrong))}'):
        MGD(**wrong)
