"""DKD, GDKD, WTTM and DIST on the second stage of detectors."""

import pytest
import torch
from reference import reached, second_teacher

from mmrkd.models.losses import decoupled_kl, grouped_kl, ranked_groups, relation_distance, transformed_matching
from mmrkd.testing import (
    build_distiller,
    detection_batch,
    model_inputs,
    save_random_teacher,
    tiny_faster_rcnn,
    tiny_retinanet,
)

METHODS = {
    'DKD': lambda z_s, z_t, y: dict(zip(('tckd', 'nckd'), weighed(decoupled_kl(z_s, z_t, y, 1.0), (1.0, 0.25)))),
    'GDKD': lambda z_s, z_t, y: dict(
        zip(
            ('high', 'top', 'other'),
            weighed(grouped_kl(z_s, z_t, ranked_groups(z_t, 2, 2, True), 1.0), (1, 0.125, 0.25)),
        )
    ),
    'WTTM': lambda z_s, z_t, y: dict(ttm=4.0 * transformed_matching(z_s, z_t, 0.2, True)),
    'DIST': lambda z_s, z_t, y: dict(zip(('inter', 'intra'), relation_distance(z_s, z_t, 1.0, False))),
}


def weighed(terms, weights):
    return [weight * term for weight, term in zip(weights, terms)]


def cascade(cfg):
    """Puts a second refinement behind the box head."""
    roi = cfg['roi_head']
    heads = [dict(roi['bbox_head'], reg_class_agnostic=True) for _ in range(2)]
    cfg.update(type='CascadeRCNN')
    cfg['roi_head'] = dict(
        type='CascadeRoIHead',
        num_stages=2,
        stage_loss_weights=[1, 0.5],
        bbox_roi_extractor=roi['bbox_roi_extractor'],
        bbox_head=heads,
    )
    cfg['train_cfg']['rcnn'] = [cfg['train_cfg']['rcnn']] * 2
    return cfg


def build(teacher, name, student=None):
    arguments = dict(k=2) if name == 'GDKD' else {}
    student = student or tiny_faster_rcnn()
    distiller = build_distiller(student, teacher, [dict(type=f'mmrkd.{name}', **arguments)]).train()
    return (distiller, *model_inputs(distiller, detection_batch()))


def first_stage(model):
    """Extractor and head that score the proposals."""
    roi = model.roi_head
    several = isinstance(roi.bbox_head, torch.nn.ModuleList)
    return (roi.bbox_roi_extractor[0], roi.bbox_head[0]) if several else (roi.bbox_roi_extractor, roi.bbox_head)


def spied(distiller, inputs, samples):
    """Losses, and what passed through the student's second stage on the way: regions, scores, labels."""
    seen = {}
    extractor, head = first_stage(distiller.student)

    def keep(name, value):
        seen.setdefault(name, value)  # and return nothing, which would take the place of what passes through

    hooks = [
        extractor.register_forward_pre_hook(lambda module, args: keep('rois', args[1].detach())),
        head.register_forward_hook(lambda module, args, out: keep('logits', out[0])),
        head.loss_cls.register_forward_pre_hook(lambda module, args: keep('labels', args[1])),
    ]
    losses = distiller.loss(inputs, samples)
    for hook in hooks:
        hook.remove()
    return losses, seen


@pytest.mark.parametrize('stages', [1, 2])
@pytest.mark.parametrize('name', METHODS)
def test_terms_on_the_regions_that_the_student_sampled(name, stages, wide_faster_rcnn, tmp_path):
    student, teacher = tiny_faster_rcnn(), wide_faster_rcnn
    if stages == 2:
        student = cascade(tiny_faster_rcnn())
        teacher = save_random_teacher(cascade(tiny_faster_rcnn(16, 24)), tmp_path, seed=4)
    distiller, inputs, samples = build(teacher, name, student)
    before = distiller.teacher.fingerprint()
    losses, seen = spied(distiller, inputs, samples)
    model = second_teacher(teacher, double=False)
    extractor, head = first_stage(model)
    with torch.no_grad():
        feats = model.extract_feat(inputs)
        z_t = head(extractor(feats[: extractor.num_inputs], seen['rois']))[0]
    assert len(z_t) == len(seen['labels']) > 10 and z_t.shape[1] == 5
    expected = METHODS[name](seen['logits'], z_t, seen['labels'])
    parts = dict(student=list(distiller.student.parameters()))
    for term, value in expected.items():
        found = losses[f'{name.lower()}.loss_{term}']
        assert found.item() == pytest.approx(value.item(), rel=1e-4, abs=1e-7)
        assert reached(found, parts) == {'student'}
    assert distiller.teacher.fingerprint() == before


def test_the_labels_have_the_background_as_their_last_class(wide_faster_rcnn):
    distiller, inputs, samples = build(wide_faster_rcnn, 'DKD')
    _, seen = spied(distiller, inputs, samples)
    assert seen['labels'].max() == 4 and seen['labels'].min() < 4


def test_a_cascade_teaches_by_its_first_stage(tmp_path):
    teacher = save_random_teacher(cascade(tiny_faster_rcnn(16, 24)), tmp_path, seed=4)
    distiller, inputs, samples = build(teacher, 'DKD')
    assert torch.isfinite(distiller.loss(inputs, samples)['dkd.loss_nckd'])


@pytest.mark.parametrize('name', METHODS)
def test_detectors_without_such_scores_are_refused(name, wide_faster_rcnn, tmp_path, wide_retinanet):
    if name != 'DIST':  # which compares dense heads, too
        with pytest.raises(ValueError, match='the student has none: RetinaNet has no second stage'):
            build(wide_retinanet, name, tiny_retinanet())
    with pytest.raises(ValueError, match='the teacher has none: RetinaNet has no second stage'):
        build(wide_retinanet, name)
    independent = tiny_faster_rcnn()
    independent['roi_head']['bbox_head']['loss_cls'] = dict(type='CrossEntropyLoss', use_sigmoid=True)
    with pytest.raises(ValueError, match='Shared2FCBBoxHead of StandardRoIHead has no softmax'):
        build(wide_faster_rcnn, name, independent)
    other = save_random_teacher(tiny_faster_rcnn(16, 24, num_classes=7), tmp_path)
    with pytest.raises(ValueError, match='the student has 4 classes, the teacher 7'):
        build(other, name)
