import pytest
import torch
from mmdet.structures.bbox import bbox_overlaps
from reference import affine, opinionated_teacher, reached, second_teacher, stir

from mmrkd.models.losses import align_statistics, box_kl, quality_focal
from mmrkd.models.methods import CrossKD
from mmrkd.testing import (
    build_distiller,
    detection_batch,
    model_inputs,
    tiny_classifier,
    tiny_faster_rcnn,
    tiny_gfl,
    tiny_retinanet,
)

GROUPS = dict(type='GN', num_groups=4, requires_grad=True)


def retinanet(width=8, neck_width=16):
    return tiny_retinanet(width, neck_width, stacked_convs=2)


def gfl(width=8, neck_width=16):
    cfg = tiny_gfl(width, neck_width)
    cfg['bbox_head'].update(stacked_convs=2, norm_cfg=GROUPS)
    return cfg


def atss(width=8, neck_width=16):
    cfg = tiny_gfl(width, neck_width)
    centerness = dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0)
    own = dict(type='ATSSHead', stacked_convs=2, norm_cfg=GROUPS, loss_centerness=centerness)
    coder = dict(type='DeltaXYWHBBoxCoder', target_stds=(0.1, 0.1, 0.2, 0.2))
    kept = ('num_classes', 'in_channels', 'feat_channels', 'anchor_generator', 'loss_bbox')
    head = {name: cfg['bbox_head'][name] for name in kept}
    focal = dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)
    cfg.update(type='ATSS', bbox_head=dict(head, **own, bbox_coder=coder, loss_cls=focal))
    return cfg


def fcos(width=8, neck_width=16):
    cfg = tiny_retinanet(width, neck_width)
    ranges = ((-1, 32), (32, 64), (64, 1e8))
    sizes = dict(num_classes=4, in_channels=neck_width, feat_channels=neck_width, stacked_convs=2, strides=[8, 16, 32])
    cfg.update(type='FCOS', bbox_head=dict(type='FCOSHead', **sizes, regress_ranges=ranges, norm_cfg=GROUPS))
    return cfg


FAMILIES = dict(retinanet=retinanet, gfl=gfl, atss=atss, fcos=fcos)


@pytest.fixture(scope='module', params=FAMILIES)
def family(request, tmp_path_factory):
    """Name, config and a teacher of 24 channels."""
    make = FAMILIES[request.param]
    return request.param, make, opinionated_teacher(make(16, 24), tmp_path_factory.mktemp(request.param), seed=31)


def build(student, teacher, double=True, **crosskd):
    arguments = dict(layer=1) | crosskd
    distiller = build_distiller(student, teacher, [dict(type='mmrkd.CrossKD', **arguments)]).train()
    stir(distiller.student.bbox_head)
    inputs, samples = model_inputs(distiller, detection_batch())
    return (distiller.double(), inputs.double(), samples) if double else (distiller, inputs, samples)


def flat(levels, columns):
    return torch.cat([x.permute(0, 2, 3, 1).reshape(-1, columns) for x in levels])


def before_activation(conv, feat):
    feat = conv.conv(feat)
    return conv.norm(feat) if conv.with_norm else feat


def crossed(head, feats, maps):
    """The second convolution and what comes after it, written out: class scores, boxes, centerness."""
    cls, reg = ([getattr(head, f'{branch}_convs')[1](m.relu()) for m in maps[branch]] for branch in ('cls', 'reg'))
    scales = getattr(head, 'scales', [lambda x: x] * len(cls))
    name = type(head).__name__
    if name == 'RetinaHead':
        return [head.retina_cls(x) for x in cls], [head.retina_reg(x) for x in reg], None
    if name == 'GFLHead':
        return [head.gfl_cls(x) for x in cls], [s(head.gfl_reg(x)) for s, x in zip(scales, reg)], None
    if name == 'ATSSHead':
        boxes = [s(head.atss_reg(x)) for s, x in zip(scales, reg)]
        return [head.atss_cls(x) for x in cls], boxes, [head.atss_centerness(x) for x in reg]
    boxes = [s(head.conv_reg(x)).exp() for s, x in zip(scales, reg)]
    return [head.conv_cls(x) for x in cls], boxes, [head.conv_centerness(x) for x in cls]


def assigned(head, outputs, samples):
    """Labels, weights and box targets of all predictions, from the head's own assigner called by itself."""
    sizes, metas = [x.shape[-2:] for x in outputs[0]], [sample.metainfo for sample in samples]
    instances = [sample.gt_instances for sample in samples]
    if type(head).__name__ == 'FCOSHead':
        points = head.prior_generator.grid_priors(sizes, dtype=torch.double, device='cpu')
        labels, boxes = map(torch.cat, head.get_targets(points, instances))
        return labels, torch.ones(len(labels)), boxes
    anchors, flags = head.get_anchors(sizes, metas, device='cpu')
    parts = head.get_targets(anchors, flags, instances, metas)
    parts = parts if type(head).__name__ == 'RetinaHead' else parts[1:]
    return [torch.cat([x.flatten(0, 1) for x in part]) for part in parts[:3]]


def decoded(head, boxes, samples):
    """Boxes in pixels, by the head's own coder."""
    sizes = [x.shape[-2:] for x in boxes]
    priors = head.prior_generator.grid_priors(sizes, dtype=torch.double, device='cpu')
    return torch.cat([head.bbox_coder.decode(p.repeat(len(samples), 1), flat([b], 4)) for p, b in zip(priors, boxes)])


def expected_losses(distiller, model, inputs, samples):
    method, head = distiller.methods[0], model.bbox_head
    name, own = type(head).__name__, distiller.student.bbox_head
    with torch.no_grad():
        f_s, f_t = distiller.student.extract_feat(inputs), model.extract_feat(inputs)
        maps = {}
        for branch in ('cls', 'reg'):
            convs = [getattr(h, f'{branch}_convs')[0] for h in (own, head)]
            h_s = [before_activation(convs[0], f) for f in f_s]
            weights = method.projections[f'{branch}_convs'].layers.state_dict()
            h_s = [affine(h, weights, '0') for h in h_s] if weights else h_s
            maps[branch] = [align_statistics(h, before_activation(convs[1], f)) for h, f in zip(h_s, f_t)]
        outputs, targets = crossed(head, f_t, maps), head.train()(f_t)
        labels, weights, boxes = assigned(own, own(f_s), samples)
    positive = labels < 4
    divisor = positive.sum()
    if name == 'FCOSHead':
        divisor = distiller.student.bbox_head.centerness_target(boxes[positive]).sum()
    scores = flat(targets[0], 4).sigmoid().amax(1) * (weights > 0)
    losses = dict(cls=method.w_cls * quality_focal(flat(outputs[0], 4), flat(targets[0], 4), weights, divisor))
    if name == 'GFLHead':
        sides = box_kl(flat(outputs[1], 16), flat(targets[1], 16), 4, 1.0, 'sum')
        losses['reg'] = method.w_reg * (scores * sides).sum() / scores.sum()
    else:
        pairs = decoded(head, outputs[1], samples), decoded(head, targets[1], samples)
        mode = 'iou' if name == 'FCOSHead' else 'giou'
        overlap = bbox_overlaps(*pairs, mode=mode, is_aligned=True)
        errors = -overlap.clamp(min=1e-6).log() if name == 'FCOSHead' else 1 - overlap
        losses['reg'] = method.w_reg * (scores * errors).sum() / divisor
    if name == 'ATSSHead':
        z, p = flat(outputs[2], 1)[positive], flat(targets[2], 1)[positive].sigmoid()
        losses['centerness'] = -(p * z.sigmoid().log() + (1 - p) * (1 - z.sigmoid()).log()).sum() / divisor
    return losses


def test_losses_written_out(family):
    name, make, teacher = family
    distiller, inputs, samples = build(make(), teacher)
    method, before = distiller.methods[0], distiller.teacher.fingerprint()
    expected = expected_losses(distiller, second_teacher(teacher), inputs, samples)
    found = distiller.loss(inputs, samples)
    assert {key for key in found if key.startswith('crosskd')} == {f'crosskd.loss_{key}' for key in expected}
    for key, value in expected.items():
        assert found[f'crosskd.loss_{key}'].item() == pytest.approx(value.item(), rel=1e-4) and value > 1e-3, key
    weights = dict(retinanet=(1, 1, 0), gfl=(1, 4, 0), atss=(1, 1, 1), fcos=(0.4, 0.75, 0))[name]
    assert (method.w_cls, method.w_reg, method.w_centerness) == weights

    head = distiller.student.bbox_head
    parts = {'cls 0': head.cls_convs[0], 'cls 1': head.cls_convs[1]}
    parts |= {'reg 0': head.reg_convs[0], 'reg 1': head.reg_convs[1]}
    parts |= dict(backbone=distiller.student.backbone, own=method.projections)
    parts = {key: list(part.parameters()) for key, part in parts.items()}
    assert reached(found['crosskd.loss_cls'], parts) == {'backbone', 'own', 'cls 0'}
    assert reached(found['crosskd.loss_reg'], parts) == {'backbone', 'own', 'reg 0'}
    distiller.parse_losses(found)[0].backward()
    assert all(p.grad is None for p in distiller.teacher.model.parameters())
    assert all(p.grad is not None for p in method.parameters())
    assert distiller.teacher.fingerprint() == before
    modules = (*distiller.student.modules(), *distiller.teacher.model.modules())
    assert not any('forward' in vars(module) for module in modules)
    assert head.cls_convs[0].activate.inplace, 'what was set for the tap is put back'


@pytest.mark.parametrize('layer', [0, 1, 2])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(family, layer):
    name, make, teacher = family
    distiller, inputs, samples = build(make(16, 24), teacher, layer=layer)
    distiller.student.load_state_dict(second_teacher(teacher).state_dict())
    distiller.student.eval()  # BatchNorm as in the teacher
    found = distiller.loss(inputs, samples)
    assert found['crosskd.loss_cls'].item() == pytest.approx(0, abs=1e-4)
    assert found['crosskd.loss_reg'].item() == pytest.approx(0, abs=1e-3)
    assert not list(distiller.methods[0].parameters()), 'equal widths need nothing to train'


def test_features_of_the_neck(family):
    name, make, teacher = family
    distiller, inputs, samples = build(make(), teacher, layer=0)
    model = second_teacher(teacher)
    found = distiller.loss(inputs, samples)
    assert distiller.methods[0].student_calls == ()
    weights = distiller.methods[0].projections['neck'].layers.state_dict()
    with torch.no_grad():
        f_s, f_t = distiller.student.extract_feat(inputs), model.extract_feat(inputs)
        feats = tuple(align_statistics(affine(s, weights, '0'), t) for s, t in zip(f_s, f_t))
        z, z_t = (flat(model.bbox_head(f)[0], 4) for f in (feats, f_t))
        outputs = distiller.student.bbox_head(f_s)
        labels, label_weights, boxes = assigned(distiller.student.bbox_head, outputs, samples)
        divisor = (labels < 4).sum()
        if name == 'fcos':
            divisor = distiller.student.bbox_head.centerness_target(boxes[labels < 4]).sum()
    expected = distiller.methods[0].w_cls * quality_focal(z, z_t, label_weights, divisor)
    assert found['crosskd.loss_cls'].item() == pytest.approx(expected.item(), rel=1e-4) and expected > 1e-3


def test_images_without_objects(family):
    _, make, teacher = family
    distiller, inputs, samples = build(make(), teacher)
    for sample in samples:
        sample.gt_instances = sample.gt_instances[:0]
    losses = distiller.loss(inputs, samples)
    assert all(torch.isfinite(torch.as_tensor(v)).all() for v in losses.values() if not isinstance(v, list))
    distiller.parse_losses(losses)[0].backward()


def test_without_weights_it_does_nothing(wide_retinanet):
    distiller, inputs, samples = build(tiny_retinanet(), wide_retinanet, w_cls=0.0, w_reg=0.0)
    distiller.teacher.extract = None  # to call it would be an error
    assert not [name for name in distiller.loss(inputs, samples) if name.startswith('crosskd')]


def test_what_does_not_fit_is_refused(wide_retinanet, wide_faster_rcnn, wide_classifier):
    with pytest.raises(ValueError, match='the student has a RPNHead'):
        build_distiller(tiny_faster_rcnn(), wide_faster_rcnn, [dict(type='mmrkd.CrossKD')])
    with pytest.raises(ValueError, match='the student has a LinearClsHead'):
        build_distiller(tiny_classifier(), wide_classifier, [dict(type='mmrkd.CrossKD')])
    with pytest.raises(ValueError, match='one kind of head, but the student has a GFLHead, the teacher a RetinaHead'):
        build_distiller(tiny_gfl(), wide_retinanet, [dict(type='mmrkd.CrossKD')])
    with pytest.raises(ValueError, match='are 1 convolutions, found layer=3'):
        build_distiller(tiny_retinanet(), wide_retinanet, [dict(type='mmrkd.CrossKD')])
    with pytest.raises(ValueError, match='RetinaHead has no w_centerness'):
        build_distiller(tiny_retinanet(), wide_retinanet, [dict(type='mmrkd.CrossKD', layer=1, w_centerness=1.0)])
    for wrong in (dict(layer=-1), dict(w_cls=-1.0), dict(w_reg=-1.0), dict(tau=0.0)):
        with pytest.raises(ValueError, match=f'CrossKD.*{next(iter(wrong))}'):
            CrossKD(**wrong)
