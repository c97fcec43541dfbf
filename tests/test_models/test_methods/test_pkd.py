import pytest
import torch
from reference import affine, reached, second_teacher

from mmrkd.models.methods import PKD
from mmrkd.testing import (
    build_distiller,
    classification_batch,
    detection_batch,
    model_inputs,
    tiny_classifier,
    tiny_gfl,
    tiny_retinanet,
)


def build(student, teacher, batch, **pkd):
    distiller = build_distiller(student, teacher, [dict(type='mmrkd.PKD', **pkd)]).double().train()
    inputs, samples = model_inputs(distiller, batch)
    return distiller, inputs.double(), samples


def distance(s, t):
    """Half the mean squared difference of z-scores, channel by channel."""
    z_s, z_t = ([(c - c.mean()) / (c.std() + 1e-6) for c in f.transpose(0, 1)] for f in (s, t))
    return sum((a - b).square().mean() for a, b in zip(z_s, z_t)) / len(z_s) / 2


@pytest.mark.parametrize('levels', [2, 4, None])
def test_first_levels_through_a_projection(wide_retinanet, levels):
    distiller, inputs, samples = build(tiny_retinanet(), wide_retinanet, detection_batch(), w_pkd=6.0, levels=levels)
    before, weights = distiller.teacher.fingerprint(), distiller.methods[0].projection.layers.state_dict()
    assert len(weights) == 2 * min(levels or 3, 3), 'a level that is left out trains nothing'
    with torch.no_grad():
        feats = [m.extract_feat(inputs)[:levels] for m in (distiller.student, second_teacher(wide_retinanet))]
        pairs = [(affine(s, weights, str(i)), t) for i, (s, t) in enumerate(zip(*feats))]
        expected = 6 * sum(distance(s, t) for s, t in pairs)
    found = distiller.loss(inputs, samples)['pkd.loss_pkd']
    assert found.item() == pytest.approx(expected.item(), rel=1e-5) and expected > 1
    parts = dict(backbone=list(distiller.student.backbone.parameters()), own=list(distiller.methods[0].parameters()))
    assert reached(found, parts | dict(head=list(distiller.student.bbox_head.parameters()))) == {'backbone', 'own'}
    assert distiller.teacher.fingerprint() == before
    assert all(p.grad is None for p in distiller.teacher.model.parameters())


def test_another_family_of_equal_width_needs_nothing(wide_retinanet):
    distiller, inputs, samples = build(tiny_gfl(neck_width=24), wide_retinanet, detection_batch())
    assert not list(distiller.methods[0].parameters())
    losses = distiller.loss(inputs, samples)
    assert losses['pkd.loss_pkd'].item() > 1 and distiller.parse_losses(losses)[0].isfinite()


def test_pooled_features_of_enough_images(wide_classifier):
    distiller, inputs, samples = build(tiny_classifier(16), wide_classifier, classification_batch(8), w_pkd=2.0)
    with torch.no_grad():
        s, t = (m.extract_feat(inputs)[0] for m in (distiller.student, second_teacher(wide_classifier)))
    found = distiller.loss(inputs, samples)['pkd.loss_pkd']
    assert found.item() == pytest.approx(2 * distance(s, t).item(), rel=1e-4) and found > 0.1


def test_few_pooled_features_are_left_out(wide_classifier):
    distiller, inputs, samples = build(tiny_classifier(8), wide_classifier, classification_batch(4))
    losses = distiller.loss(inputs, samples)
    assert losses['pkd.loss_pkd'] == 0 and distiller.methods[0].told
    distiller.parse_losses(losses)[0].backward()
    assert all(p.grad is not None for p in distiller.parameters()), 'DDP waits for every one'


def test_without_a_weight_it_does_nothing(wide_retinanet):
    distiller, inputs, samples = build(tiny_retinanet(), wide_retinanet, detection_batch(), w_pkd=0.0)
    distiller.teacher.extract = None  # to call it would be an error
    assert not [name for name in distiller.loss(inputs, samples) if 'pkd' in name]


@pytest.mark.parametrize('wrong', [dict(w_pkd=-1.0), dict(levels=0), dict(levels=-2)], ids=str)
def test_arguments_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=f'PKD.*found {next(iter(wrong))}={next(iter(wrong.values()))}'):
        PKD(**wrong)
