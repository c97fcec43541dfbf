import pytest
import torch
from reference import affine, reached, second_teacher

from mmrkd.models.methods import CWD
from mmrkd.testing import build_distiller, detection_batch, model_inputs, tiny_classifier, tiny_gfl, tiny_retinanet


def build(student, teacher, batch=None, **cwd):
    distiller = build_distiller(student, teacher, [dict(type='mmrkd.CWD', **cwd)]).double().train()
    inputs, samples = model_inputs(distiller, batch or detection_batch())
    return distiller, inputs.double(), samples


def divergence(f_s, f_t, tau=1.0):
    """Written with logarithms of probabilities, image by image and channel by channel."""
    values = []
    for image_s, image_t in zip(f_s, f_t):
        for channel_s, channel_t in zip(image_s, image_t):
            p_s, p_t = (torch.exp(c / tau) / torch.exp(c / tau).sum() for c in (channel_s, channel_t))
            values.append((p_t * (p_t / p_s).log()).sum())
    return tau**2 * sum(values) / len(values)


def test_levels_of_the_neck_through_a_projection(wide_retinanet):
    distiller, inputs, samples = build(tiny_retinanet(), wide_retinanet, w_cwd=5.0, tau=2.0)
    teacher, before = second_teacher(wide_retinanet), distiller.teacher.fingerprint()
    weights = distiller.methods[0].projection.layers.state_dict()
    assert sorted(weights) == sorted(f'{level}.{name}' for level in range(3) for name in ('weight', 'bias'))
    with torch.no_grad():
        own, others = distiller.student.extract_feat(inputs), teacher.extract_feat(inputs)
        pairs = [(affine(f, weights, str(level)), t) for level, (f, t) in enumerate(zip(own, others))]
        expected = 5 * sum(divergence(s, t, 2.0) for s, t in pairs)
    found = distiller.loss(inputs, samples)['cwd.loss_cwd']
    assert found.item() == pytest.approx(expected.item(), rel=1e-6) and expected > 1e-3
    parts = dict(backbone=list(distiller.student.backbone.parameters()), own=list(distiller.methods[0].parameters()))
    assert reached(found, parts | dict(head=list(distiller.student.bbox_head.parameters()))) == {'backbone', 'own'}
    assert all(p.grad is None for p in distiller.teacher.model.parameters())
    assert distiller.teacher.fingerprint() == before


def test_classification_maps_of_the_heads(wide_retinanet):
    distiller, inputs, samples = build(tiny_retinanet(), wide_retinanet, on='logits')
    teacher = second_teacher(wide_retinanet)
    with torch.no_grad():
        z_s, z_t = (m.bbox_head(m.extract_feat(inputs))[0] for m in (distiller.student, teacher))
    found = distiller.loss(inputs, samples)['cwd.loss_cwd']
    assert found.item() == pytest.approx(10 * sum(map(divergence, z_s, z_t)).item(), rel=1e-6) and found > 1e-6
    assert not list(distiller.methods[0].parameters()) and distiller.methods[0].compares_classes


def test_cells_of_padding_are_left_out_if_asked(wide_retinanet):
    distiller, inputs, samples = build(tiny_retinanet(neck_width=24), wide_retinanet, crop=True)
    samples[1].set_metainfo(dict(img_shape=(60, 81)))  # cells of stride 8, 16, 32: 8 x 11, 4 x 6, 2 x 3
    with torch.no_grad():
        feats = [m.extract_feat(inputs) for m in (distiller.student, second_teacher(wide_retinanet))]
    expected = 0
    for s, t, (height, width) in zip(*feats, ((8, 11), (4, 6), (2, 3))):
        crops = (f[1:, :, :height, :width] for f in (s, t))
        expected += 10 * (divergence(s[:1], t[:1]) + divergence(*crops)) / 2
    assert distiller.loss(inputs, samples)['cwd.loss_cwd'].item() == pytest.approx(expected.item(), rel=1e-6)
    assert not list(distiller.methods[0].parameters()), 'equal widths need no projection'


def test_without_a_weight_it_does_nothing(wide_retinanet):
    distiller, inputs, samples = build(tiny_retinanet(), wide_retinanet, w_cwd=0.0)
    distiller.teacher.extract = None  # to call it would be an error
    assert not [name for name in distiller.loss(inputs, samples) if 'cwd' in name]


def test_what_does_not_fit_is_refused(wide_retinanet, wide_classifier):
    with pytest.raises(ValueError, match='CWD compares maps.*pooled'):
        build_distiller(tiny_classifier(), wide_classifier, [dict(type='mmrkd.CWD')])
    with pytest.raises(ValueError, match='CWD compares the outputs of the heads'):
        build_distiller(tiny_gfl(), wide_retinanet, [dict(type='mmrkd.CWD', on='logits')])
    for wrong in (dict(tau=0.0), dict(tau=-1.0), dict(w_cwd=-1.0), dict(on='masks')):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            CWD(**wrong)
