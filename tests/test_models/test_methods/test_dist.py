import pytest
import torch
from mmengine.logging import MMLogger
from reference import affine, reached, second_teacher

from mmrkd.models.losses import relation_distance
from mmrkd.models.methods import DIST
from mmrkd.testing import (
    build_distiller,
    classification_batch,
    detection_batch,
    model_inputs,
    save_random_teacher,
    tiny_classifier,
    tiny_gfl,
    tiny_retinanet,
)


def build(student, teacher, batch, **dist):
    distiller = build_distiller(student, teacher, [dict(type='mmrkd.DIST', **dist)]).double().train()
    inputs, samples = model_inputs(distiller, batch)
    return distiller, inputs.double(), samples


def terms(found):
    assert set(found) > {'dist.loss_inter', 'dist.loss_intra'}
    return found['dist.loss_inter'].item(), found['dist.loss_intra'].item()


@pytest.mark.parametrize('dist', [{}, dict(beta=1.0, gamma=3.0, tau=4.0)], ids=str)
def test_classifiers(wide_classifier, dist):
    distiller, inputs, samples = build(tiny_classifier(8), wide_classifier, classification_batch(), **dist)
    plain = second_teacher(wide_classifier)
    z_t = plain.head(plain.extract_feat(inputs))
    z_s = affine(distiller.student.extract_feat(inputs)[0], dict(distiller.student.named_parameters()), 'head.fc')
    inter, intra = relation_distance(z_s, z_t, dist.get('tau', 1.0))
    before = distiller.teacher.fingerprint()
    found = distiller.loss(inputs, samples)
    expected = dist.get('beta', 2.0) * inter.item(), dist.get('gamma', 2.0) * intra.item()
    assert terms(found) == pytest.approx(expected, rel=1e-6) and min(expected) > 1e-3
    for name in ('dist.loss_inter', 'dist.loss_intra'):
        assert reached(found[name], dict(student=list(distiller.student.parameters()))) == {'student'}
    distiller.parse_losses(found)[0].backward()
    assert not list(distiller.methods.parameters()) and distiller.teacher.fingerprint() == before


@pytest.mark.parametrize('dist', [{}, dict(columns='classes', beta=0.5)], ids=str)
def test_levels_of_a_dense_head_are_summed(wide_retinanet, dist):
    distiller, inputs, samples = build(tiny_retinanet(), wide_retinanet, detection_batch(), **dist)
    teacher = second_teacher(wide_retinanet)
    columns = 4 if dist else 3 * 4  # three anchors of four classes
    with torch.no_grad():
        maps = [model.bbox_head(model.extract_feat(inputs))[0] for model in (distiller.student, teacher)]
    expected = [0.0, 0.0]
    for z_s, z_t in zip(*maps):
        rows = [torch.einsum('nchw->nhwc', z).reshape(-1, columns) for z in (z_s, z_t)]
        for i, term in enumerate(relation_distance(*rows, sigmoid=True)):
            expected[i] += term.item()
    expected[0] *= dist.get('beta', 1.0)
    found = distiller.loss(inputs, samples)
    assert terms(found) == pytest.approx(expected, rel=1e-6) and min(expected) > 0.1
    for name in ('dist.loss_inter', 'dist.loss_intra'):
        assert reached(found[name], dict(student=list(distiller.student.parameters()))) == {'student'}


def test_one_image_has_no_relation_between_samples(wide_classifier, monkeypatch):
    distiller, inputs, samples = build(tiny_classifier(8), wide_classifier, classification_batch(num_images=1))
    said = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'log', lambda level, message, *_: said.append(str(message)))
    for _ in range(2):
        found = distiller.loss(inputs, samples)
        assert found['dist.loss_intra'].item() == 0 and found['dist.loss_inter'] > 1e-3
        distiller.parse_losses(found)[0].backward()
    assert sum('batches of one image' in message for message in said) == 1


def test_weights_of_zero_turn_it_off(wide_retinanet):
    distiller, inputs, samples = build(tiny_retinanet(), wide_retinanet, detection_batch(), beta=0.0, gamma=0.0)
    assert set(distiller.loss(inputs, samples)) == {'loss_cls', 'loss_bbox'}
    assert DIST().active and DIST(beta=0.0).active


@pytest.mark.parametrize(
    'dist, message',
    [
        (dict(tau=0.0), 'a number > 0 expected, found tau=0.0'),
        (dict(gamma=-1.0), 'weights must be >= 0.*gamma=-1.0'),
        (dict(columns='anchors'), "columns must be one of.*found 'anchors'"),
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(dist, message):
    with pytest.raises(ValueError, match=message):
        DIST(**dist)


def test_pairs_that_do_not_fit_are_refused(tmp_path, wide_retinanet, wide_faster_rcnn):
    with pytest.raises(ValueError, match='DIST compares the outputs of the heads.*do not line up'):
        build(tiny_gfl(), wide_retinanet, detection_batch())
    with pytest.raises(ValueError, match='the student has none: RetinaNet has no second stage'):
        build(tiny_retinanet(), wide_faster_rcnn, detection_batch())
    softmax = dict(loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False))
    student, teacher = tiny_retinanet(**softmax), save_random_teacher(tiny_retinanet(16, 24, **softmax), tmp_path)
    with pytest.raises(ValueError, match='DIST on a dense head needs independent scores'):
        build(student, teacher, detection_batch())
    independent = tiny_classifier(8)
    independent['head']['loss'] = dict(type='CrossEntropyLoss', use_sigmoid=True)
    with pytest.raises(ValueError, match='DIST needs exclusive classes'):
        build(independent, save_random_teacher(independent, tmp_path, seed=1), classification_batch())
