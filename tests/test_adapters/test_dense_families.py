"""One scene in the words of every dense family: a weight must mean the same for all of them."""

import math

import mmdet.models  # noqa: F401 - what is registered by a first import inside a test is gone after it
import pytest
import torch
from scenes import Scene

from mmrkd.adapters.dense_heads import READINGS
from mmrkd.adapters.detection import DetectionAdapter
from mmrkd.models import OutputMimicry
from mmrkd.support.trial import lighten, load_stock_config, small_variant
from mmrkd.testing import build_model

FAMILIES = (
    'atss/atss_r50_fpn_1x_coco',
    'autoassign/autoassign_r50-caffe_fpn_1x_coco',
    'boxinst/boxinst_r50_fpn_ms-90k_coco',
    'centernet/centernet-update_r50-caffe_fpn_ms-1x_coco',
    'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance',
    'crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman',
    'ddod/ddod_r50_fpn_1x_coco',
    'efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco',
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco',
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco',
    'fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco',
    'foveabox/fovea_r50_fpn_4xb4-1x_coco',
    'free_anchor/freeanchor_r50_fpn_1x_coco',
    'fsaf/fsaf_r50_fpn_1x_coco',
    'gfl/gfl_r50_fpn_1x_coco',
    'ghm/retinanet_r50_fpn_ghm-1x_coco',
    'lad/lad_r50-paa-r101_fpn_2xb8_coco_1x',
    'legacy_1.x/retinanet_r50_fpn_1x_coco_v1',
    'legacy_1.x/ssd300_coco_v1',
    'libra_rcnn/libra-retinanet_r50_fpn_1x_coco',
    'paa/paa_r50_fpn_1x_coco',
    'pisa/retinanet-r50_fpn_pisa_1x_coco',
    'pisa/ssd300_pisa_coco',
    'reppoints/reppoints-moment_r50_fpn_1x_coco',
    'retinanet/retinanet_r50_fpn_1x_coco',
    'rpn/rpn_r50_fpn_1x_coco',
    'rtmdet/rtmdet_tiny_8xb32-300e_coco',
    'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco',
    'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco',
    'tood/tood_r50_fpn_1x_coco',
    'tood/tood_r50_fpn_anchor-based_1x_coco',
    'vfnet/vfnet_r50_fpn_1x_coco',
    'yolact/yolact_r50_1xb8-55e_coco',
    'yolo/yolov3_mobilenetv2_8xb24-320-300e_coco',
    'yolof/yolof_r50-c5_8xb8-1x_coco',
    'yolox/yolox_tiny_8xb8-300e_coco',
)


def adapter_of(name):
    """The family with 12 classes and narrow towers: the same head, in a quarter of the time."""
    if name.startswith('boxinst'):
        pytest.importorskip('skimage')
    cfg = small_variant(lighten(load_stock_config(f'mmdet::{name}.py')))
    for head in (cfg.get('bbox_head') or {}, *([] if 'bbox_head' in cfg else [cfg.rpn_head])):
        head.update({key: 32 for key in ('feat_channels',) if key in head and 'YOLO' not in head.type})
        head.update({key: 1 for key in ('stacked_convs',) if key in head and 'Ins' not in head.type})
        head.update({key: 12 for key in ('num_classes',) if head.get(key, 1) > 1})
    return DetectionAdapter(build_model(cfg))


@pytest.fixture(scope='module', params=FAMILIES)
def scene(request):
    adapter = adapter_of(request.param)
    return adapter, Scene(adapter)


def compare(adapter, student, teacher):
    w_box = 1.0 if adapter.box_obstacle is None else 0.0
    return OutputMimicry(adapter, w_box=w_box)('loss', 1.0, student, teacher)


@pytest.mark.slow
class TestScene:
    def test_the_head_finds_what_was_written_down(self, scene):
        """Which shows that the scene is in the head's own words."""
        adapter, scene = scene
        found = scene.predicted(scene.write())
        assert len(found) == 10 and found.scores.min() > 0.98
        if scene.kind not in ('bins', 'points'):
            order = [int((found.bboxes - box).abs().sum(1).argmin()) for box in scene.boxes]
            assert torch.allclose(found.bboxes[order], scene.boxes, atol=0.6 if scene.legacy else 0.1)
            assert found.labels[order].tolist() == [label for *_, label in scene.places()]
        assert len(scene.predicted(scene.write(seen=False))) == 0

    def test_the_logits_are_those_of_the_predicted_scores(self, scene):
        adapter, scene = scene
        generator = torch.Generator().manual_seed(0)
        outputs = scene.write()
        for part in outputs:
            for level in part:
                noise = torch.randn(level.shape, generator=generator)
                level.copy_(
                    (level.logit() + noise).sigmoid()
                    if scene.kind == 'corners' and part is outputs[0]
                    else level + noise * (0.1 if part is outputs[1 % len(outputs)] else 1)
                )
        logits = torch.cat(adapter.logits(outputs))
        expected = logits.sigmoid() if adapter.sigmoid else logits.softmax(1)[:, :-1]
        assert scene.predicted(outputs).scores.max().item() == pytest.approx(expected.max().item(), rel=1e-4)

    def test_a_student_equal_to_its_teacher_has_nothing_to_learn(self, scene):
        adapter, scene = scene
        losses = compare(adapter, scene.write(), scene.write())
        assert all(value.item() == pytest.approx(0, abs=1e-6) for value in losses.values())

    def test_what_is_surely_missed_costs_the_same(self, scene):
        """Bernoulli KL of a sure miss: 0.999 * log(0.999 / 0.001) = 6.9."""
        adapter, scene = scene
        student = [[level.requires_grad_() for level in part] for part in scene.write(seen=False)]
        loss = compare(adapter, student, scene.write())['loss']
        assert 5 < loss.item() < 10
        loss.backward()
        row, column, *_ = next(scene.places())
        grads = [part[0].grad for part in student if part[0].grad is not None]
        assert max(grad[0, :, row, column].abs().max() for grad in grads) > 0.01
        share = max(grad.abs()[0, :, row, column].sum() / grad.abs().sum() for grad in grads)
        assert share > 0.08, 'ten objects share the gradient'

    def test_what_is_seen_where_nothing_is_costs_the_same(self, scene):
        adapter, scene = scene
        loss = compare(adapter, scene.write(), scene.write(seen=False))['loss']
        assert 40 < loss.item() < 140, 'ten of them, and no object'

    def test_a_box_that_is_a_tenth_too_large_costs_the_same(self, scene):
        adapter, scene = scene
        losses = compare(adapter, scene.write(scale=1.1), scene.write())
        assert losses['loss'].item() == pytest.approx(0, abs=1e-6)
        if 'loss_box' in losses and adapter.box_bins == 1:
            assert losses['loss_box'].item() == pytest.approx(0.049, abs=0.0035)

    def test_boxes_of_the_background_do_not_count(self, scene):
        adapter, scene = scene
        student = [[level.clone() for level in part] for part in scene.write()]
        if 'loss_box' not in compare(adapter, student, scene.write()) or scene.kind == 'yolov3':
            return
        taken = {place[:2] for place in scene.places()}
        free = next((y, x) for y in range(99) for x in range(scene.grids[0][1]) if (y, x) not in taken)
        for part in student[1:3]:
            if part[0].shape == student[1][0].shape:
                part[0][:, :, free[0], free[1]] += 5
        assert compare(adapter, student, scene.write())['loss_box'].item() < 1e-3


@pytest.mark.slow
def test_every_head_that_is_declared_was_tried():
    tried = set()
    for name in FAMILIES:
        head = adapter_of_type(name)
        tried |= {f'{base.__module__}.{base.__qualname__}' for base in head.__mro__}
    assert {name for name, reading in READINGS.items() if reading is not None} <= tried


def adapter_of_type(name):
    from mmdet.registry import MODELS

    model = load_stock_config(f'mmdet::{name}.py')
    head = model.get('bbox_head') or model.get('rpn_head')
    return MODELS.get(head.type)


def test_sure_is_sure():
    assert 0.999 * math.log(0.999 / 0.001) == pytest.approx(6.9, abs=0.01)
