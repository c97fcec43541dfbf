import pytest
import torch
from reference import affine, level_mse, second_teacher

from mmrkd.models.methods import FitNets, Pair
from mmrkd.structures import Level, StudentView, TeacherView, match_levels
from mmrkd.testing import (
    build_distiller,
    classification_batch,
    detection_batch,
    model_inputs,
    tiny_classifier,
    tiny_retinanet,
)


def build(student, teacher, batch, **fitnets):
    """A distiller in training mode, a batch for it, and features of both models, in double precision."""
    distiller = build_distiller(student, teacher, [dict(type='mmrkd.FitNets', **fitnets)]).double().train()
    inputs, samples = model_inputs(distiller, batch)
    inputs, model = inputs.double(), second_teacher(teacher)
    with torch.no_grad():
        return distiller, inputs, samples, distiller.student.extract_feat(inputs), model.extract_feat(inputs)


@pytest.mark.parametrize('w_feat', [1.0, 5.0])
def test_hint_on_pooled_features(wide_classifier, w_feat):
    batch = classification_batch()
    distiller, inputs, samples, f_s, f_t = build(tiny_classifier(8), wide_classifier, batch, w_feat=w_feat)
    weights = distiller.methods[0].projection.layers.state_dict()
    assert {name: tuple(value.shape) for name, value in weights.items()} == {'0.weight': (128, 64), '0.bias': (128,)}
    expected = w_feat * level_mse([affine(f_s[0], weights, '0')], f_t)
    found = distiller.loss(inputs, samples)
    assert set(found) == {'loss', 'fitnets.loss_feat'}
    assert found['fitnets.loss_feat'].item() == pytest.approx(expected.item(), rel=1e-6)


def test_equal_widths_are_projected_too(equal_classifier):
    distiller, inputs, samples, f_s, f_t = build(tiny_classifier(8), equal_classifier, classification_batch())
    expected = level_mse([affine(f_s[0], distiller.methods[0].projection.layers.state_dict(), '0')], f_t)
    assert distiller.loss(inputs, samples)['fitnets.loss_feat'].item() == pytest.approx(expected.item(), rel=1e-6)
    assert abs(expected - level_mse(f_s, f_t)) > 1e-3


@pytest.mark.parametrize('standardize', [None, True, False])
def test_hint_on_levels(wide_retinanet, standardize):
    distiller, inputs, samples, f_s, f_t = build(
        tiny_retinanet(), wide_retinanet, detection_batch(), w_feat=0.3, standardize=standardize
    )
    weights = distiller.methods[0].projection.layers.state_dict()
    assert weights['0.weight'].shape == (24, 16, 1, 1) and set(weights) == {'0.weight', '0.bias'}
    targets = list(f_t)
    if standardize is not False:  # maps are, unless one says otherwise
        over = dict(dim=(0, 2, 3), keepdim=True)
        targets = [(f - f.mean(**over)) / f.std(unbiased=False, **over) for f in f_t]
    expected = 0.3 * level_mse([affine(f, weights, '0') for f in f_s], targets)
    found = distiller.loss(inputs, samples)['fitnets.loss_feat'].item()
    assert found == pytest.approx(expected.item(), rel=1e-6 if standardize is False else 1e-5)


def test_levels_of_other_widths_have_projections_of_their_own():
    """As from a backbone: two levels share a pair of widths, the third has another."""
    student = [Level(4, 8), Level(4, 16), Level(8, 32)]
    teacher = [Level(6, 8), Level(6, 16), Level(6, 32)]
    method = FitNets(standardize=False)
    method.setup(Pair(None, None, match_levels(student, teacher), None))
    weights = method.projection.layers.state_dict()
    assert [tuple(p.weight.shape) for p in method.projection.layers] == [(6, 4, 1, 1), (6, 8, 1, 1)]
    f_s = [torch.randn(2, level.channels, size, size) for level, size in zip(student, (4, 2, 1))]
    f_t = [torch.randn(2, level.channels, size, size) for level, size in zip(teacher, (4, 2, 1))]
    expected = level_mse([affine(f, weights, str(i)) for f, i in zip(f_s, (0, 0, 1))], f_t)
    view = TeacherView(None, tuple(f_t), None, None)
    found = method.losses(StudentView(None, tuple(f_s)), view, ())['loss_feat']
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_what_it_trains(wide_retinanet):
    distiller, inputs, samples, _, _ = build(tiny_retinanet(), wide_retinanet, detection_batch())
    before = distiller.teacher.fingerprint()
    distiller.loss(inputs, samples)['fitnets.loss_feat'].backward()
    student = distiller.student
    for module in (student.backbone, student.neck, distiller.methods[0].projection):
        assert sum(p.grad.abs().sum() for p in module.parameters() if p.grad is not None) > 0
    assert all(p.grad is None for p in student.bbox_head.parameters())
    assert all(p.grad is None for p in distiller.teacher.model.parameters())
    assert distiller.teacher.fingerprint() == before


def test_every_trainable_parameter_gets_a_gradient(wide_retinanet):
    distiller, inputs, samples, _, _ = build(tiny_retinanet(), wide_retinanet, detection_batch())
    distiller.parse_losses(distiller.loss(inputs, samples))[0].backward()
    assert [n for n, p in distiller.named_parameters() if p.requires_grad and p.grad is None] == []


def test_without_a_weight_it_does_nothing(wide_classifier):
    distiller, inputs, samples, _, _ = build(tiny_classifier(8), wide_classifier, classification_batch(), w_feat=0.0)
    distiller.teacher.extract = None  # to call it would be an error
    assert set(distiller.loss(inputs, samples)) == {'loss'}
    assert FitNets().active and not FitNets(w_feat=0.0).active


def test_it_does_not_read_the_teachers_head(wide_classifier):
    """So that a teacher with other classes will do."""
    distiller, inputs, samples, _, _ = build(tiny_classifier(8), wide_classifier, classification_batch())
    distiller.teacher.model.head = None
    assert distiller.loss(inputs, samples)['fitnets.loss_feat'].item() > 0


def test_it_adds_no_variant(wide_classifier):
    distiller, *_ = build(tiny_classifier(8), wide_classifier, classification_batch())
    assert tuple(distiller.variants) == ('student', 'teacher')
