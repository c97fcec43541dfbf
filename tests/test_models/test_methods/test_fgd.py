import pytest
import torch
from reference import affine, reached, second_teacher

from mmrkd.models.losses import focal_masks, focal_terms
from mmrkd.models.methods import FGD
from mmrkd.testing import (
    build_distiller,
    detection_batch,
    model_inputs,
    tiny_classifier,
    tiny_faster_rcnn,
    tiny_retinanet,
)

TERMS = ('fg', 'bg', 'attention', 'relation')


def build(student, teacher, batch=None, **fgd):
    distiller = build_distiller(student, teacher, [dict(type='mmrkd.FGD', **fgd)]).double().train()
    inputs, samples = model_inputs(distiller, batch or detection_batch())
    return distiller, inputs.double(), samples


@pytest.mark.parametrize('box_grid', ['stride', 'image'])
def test_levels_of_the_neck(wide_retinanet, box_grid):
    distiller, inputs, samples = build(tiny_retinanet(), wide_retinanet, box_grid=box_grid)
    method, before = distiller.methods[0], distiller.teacher.fingerprint()
    samples[1].set_metainfo(dict(img_shape=(80, 64)))
    weights = method.projection.layers.state_dict()
    sums = torch.zeros(4, dtype=torch.double)
    with torch.no_grad():
        feats = (m.extract_feat(inputs) for m in (distiller.student, second_teacher(wide_retinanet)))
        for level, (s, t) in enumerate(zip(*feats)):
            s = affine(s, weights, str(level))
            boxes = []
            for sample in samples:
                height, width = sample.img_shape
                per_cell = (width / t.shape[3], height / t.shape[2]) if box_grid == 'image' else (8 * 2**level,) * 2
                boxes.append(sample.gt_instances.bboxes / torch.tensor(per_cell * 2))
            sums[:3] += torch.stack(focal_terms(s, t, *focal_masks(boxes, s.shape[2:]), 0.5))
            sums[3] += ((s - t) ** 2).sum() / 2  # both blocks begin as the identity
    found = distiller.loss(inputs, samples)
    for value, name, weight in zip(sums, TERMS, (1e-3, 5e-4, 5e-4, 5e-6)):
        assert found[f'fgd.loss_{name}'].item() == pytest.approx(weight * value.item(), rel=1e-5) and value > 1e-3
    distiller.parse_losses(found)[0].backward()
    assert all(p.grad is None for p in distiller.teacher.model.parameters())
    assert distiller.teacher.fingerprint() == before


def test_who_learns_from_what(wide_retinanet):
    distiller, inputs, samples = build(tiny_retinanet(), wide_retinanet)
    method = distiller.methods[0]
    with torch.no_grad():
        for block in (*method.student_contexts, *method.teacher_contexts):
            block.transform[3].weight.normal_()
    found = distiller.loss(inputs, samples)
    parts = dict(backbone=distiller.student.backbone, projection=method.projection, own=method.student_contexts)
    parts |= dict(other=method.teacher_contexts, head=distiller.student.bbox_head)
    parts = {name: list(part.parameters()) for name, part in parts.items()}
    for name in TERMS[:3]:
        assert reached(found[f'fgd.loss_{name}'], parts) == {'backbone', 'projection'}
    assert reached(found['fgd.loss_relation'], parts) == {'backbone', 'projection', 'own', 'other'}


def test_first_levels_of_two_stages_without_the_relation(wide_faster_rcnn):
    student = tiny_faster_rcnn(8, 24)
    distiller, inputs, samples = build(student, wide_faster_rcnn, levels=4, w_relation=0.0)
    distiller, inputs = distiller.float(), inputs.float()  # NMS knows no other
    assert not list(distiller.methods[0].parameters()), 'nothing that is never trained'
    losses = distiller.loss(inputs, samples)
    assert {name for name in losses if 'fgd' in name} == {f'fgd.loss_{name}' for name in TERMS[:3]}
    assert distiller.parse_losses(losses)[0].isfinite() and losses['fgd.loss_fg'] > 0


def test_images_without_boxes_are_background(wide_retinanet):
    batch = detection_batch()
    for sample in batch['data_samples']:
        sample.gt_instances = sample.gt_instances[:0]
    distiller, inputs, samples = build(tiny_retinanet(), wide_retinanet, batch)
    losses = distiller.loss(inputs, samples)
    assert losses['fgd.loss_fg'] == 0 and losses['fgd.loss_bg'] > 0
    assert distiller.parse_losses(losses)[0].isfinite()


def test_without_weights_it_does_nothing(wide_retinanet):
    off = dict.fromkeys(('w_fg', 'w_bg', 'w_attention', 'w_relation'), 0.0)
    distiller, inputs, samples = build(tiny_retinanet(), wide_retinanet, **off)
    distiller.teacher.extract = None  # to call it would be an error
    assert not [name for name in distiller.loss(inputs, samples) if 'fgd' in name]


def test_what_does_not_fit_is_refused(wide_classifier):
    with pytest.raises(ValueError, match='FGD reads boxes, found models for classification'):
        build_distiller(tiny_classifier(), wide_classifier, [dict(type='mmrkd.FGD')])
    for wrong in (dict(temp=0.0), dict(w_fg=-1.0), dict(w_relation=-1.0), dict(levels=0), dict(box_grid='cells')):
        with pytest.raises(ValueError, match=f'FGD.*{next(iter(wrong))}'):
            FGD(**wrong)
