"""Targets that the student's own assigner found, against those that the head returns when it is asked again."""

import mmdet.models  # noqa: F401 - what is registered by a first import inside a test is gone after it
import pytest
import torch

from mmrkd.adapters.assigned import AssignedOnce, TargetCapture, assign_alike, assigns_alone, read_targets
from mmrkd.adapters.detection import DetectionAdapter
from mmrkd.support.trial import _tell_the_time, generated_batch, lighten, load_stock_config, small_variant
from mmrkd.testing import (
    build_model,
    classification_batch,
    detection_batch,
    model_inputs,
    tiny_classifier,
    tiny_faster_rcnn,
    tiny_gfl,
    tiny_retinanet,
)

STOCK = {
    'fcos': 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco',
    'atss': 'atss/atss_r50_fpn_1x_coco',
    'tood': 'tood/tood_r50_fpn_1x_coco',
    'rtmdet': 'rtmdet/rtmdet_tiny_8xb32-300e_coco',
    'vfnet': 'vfnet/vfnet_r50_fpn_1x_coco',
}


def captured(cfg):
    adapter = DetectionAdapter(build_model(cfg).train())
    adapter.dry_run()
    _tell_the_time(0)
    inputs, samples = model_inputs(adapter.model, generated_batch(adapter, adapter.dry_size, 0))
    capture, returned = TargetCapture(), []
    own = getattr(adapter.head, 'get_targets', None)
    if own is not None:
        adapter.head.get_targets = lambda *args, **kwargs: returned.append(own(*args, **kwargs)) or returned[-1]
    losses, outputs = adapter.task_loss(adapter.extract(inputs), inputs, samples, capture=capture)
    return adapter, outputs, samples, capture.assigned, returned


def stock(name):
    return small_variant(lighten(load_stock_config(f'mmdet::{STOCK[name]}.py')))


def check_against_objects(adapter, outputs, samples, assigned):
    """Predictions with a label lie in an object of that label, and every object has one."""
    found = [set() for _ in samples]
    for level, (labels, weights) in enumerate(zip(assigned.labels, assigned.label_weights)):
        maps = adapter.logit_maps(outputs)[level]
        n, channels, h, w = maps.shape
        assert labels.shape == weights.shape == (n * h * w * channels // adapter.columns,)
        grid = labels.view(n, h, w, -1)
        stride = adapter.head.prior_generator.strides[level]
        stride = stride[0] if isinstance(stride, tuple) else stride
        for image, y, x, a in (grid < adapter.num_classes).nonzero().tolist():
            label = grid[image, y, x, a].item()
            found[image].add(label)
            gt = samples[image].gt_instances
            near = [box for box, own in zip(gt.bboxes, gt.labels) if own == label]
            cx, cy = (x + 0.5) * stride, (y + 0.5) * stride
            reach = 4 * stride  # ATSS takes the nearest centres, whose anchors reach the object
            assert any(b[0] - reach < cx < b[2] + reach and b[1] - reach < cy < b[3] + reach for b in near)
    assert found == [set(sample.gt_instances.labels.tolist()) for sample in samples]


@pytest.mark.parametrize(
    'cfg', [tiny_retinanet(), tiny_gfl(), *STOCK], ids=lambda c: c if isinstance(c, str) else c['type']
)
def test_labels_in_the_order_of_the_logits(cfg):
    adapter, outputs, samples, assigned, returned = captured(stock(cfg) if isinstance(cfg, str) else cfg)
    check_against_objects(adapter, outputs, samples, assigned)
    assert len(returned) == 1, 'nothing is assigned twice'
    positive = sum(int((level < adapter.num_classes).sum()) for level in assigned.labels)
    assert assigned.num_pos.item() == positive > 0
    assert not any(t.requires_grad for t in (*assigned.labels, *assigned.label_weights))


def test_what_a_user_had_set_is_put_back():
    adapter, *_ = captured(tiny_retinanet())
    assert adapter.head.get_targets.__name__ == '<lambda>'
    del adapter.head.get_targets
    assert 'get_targets' not in vars(adapter.head)


@pytest.mark.parametrize(
    'name', ['paa/paa_r50_fpn_1x_coco', 'ddod/ddod_r50_fpn_1x_coco', 'yolox/yolox_tiny_8xb8-300e_coco']
)
def test_a_head_that_has_none_to_give(name):
    cfg = small_variant(lighten(load_stock_config(f'mmdet::{name}.py')))
    assert captured(cfg)[3] is None


def test_a_classifier_has_none():
    from mmrkd.adapters import build_adapter

    adapter = build_adapter(build_model(tiny_classifier()).train())
    inputs, samples = model_inputs(adapter.model, classification_batch())
    capture = TargetCapture()
    adapter.task_loss(adapter.extract(inputs), inputs, samples, capture=capture)
    assert capture.assigned is None


def counted(adapter):
    """Counts the assignments of a head, below what may be reused."""
    calls = []
    own = adapter.head._get_targets_single
    adapter.head._get_targets_single = lambda *args, **kwargs: calls.append(1) or own(*args, **kwargs)
    return calls


class TestOnce:
    """A second pass of a batch, with other features."""

    @pytest.fixture(params=[tiny_retinanet(), tiny_gfl(), 'atss'], ids=['retinanet', 'gfl', 'atss'])
    def adapter(self, request):
        cfg = stock(request.param) if isinstance(request.param, str) else request.param
        adapter = DetectionAdapter(build_model(cfg).train())
        adapter.dry_run()
        return adapter

    def losses(self, adapter, seed, capture=None, size=None):
        images = generated_batch(adapter, size or adapter.dry_size, 0)
        inputs, samples = model_inputs(adapter.model, images)
        generator = torch.Generator().manual_seed(seed)
        feats = adapter.extract(inputs)
        feats = adapter.replace(feats, {i: torch.randn(f.shape, generator=generator) for i, f in enumerate(feats)})
        return adapter.task_loss(feats, inputs, samples, capture)[0]

    def test_it_is_assigned_once_and_the_losses_are_the_same_bit_for_bit(self, adapter):
        expected, once = [self.losses(adapter, seed) for seed in (1, 2)], AssignedOnce()
        calls = counted(adapter)
        found = [self.losses(adapter, seed, TargetCapture(reads=False, once=once)) for seed in (1, 2)]
        assert len(calls) == 2, 'one for each image'
        assert found[0] != found[1]
        for pass_, wanted in zip(found, expected):
            for name, terms in wanted.items():
                assert all(torch.equal(*pair) for pair in zip(pass_[name], terms)), name

    def test_on_another_grid_it_is_assigned_anew(self, adapter):
        once, size = AssignedOnce(), adapter.dry_size * 2
        self.losses(adapter, 1, TargetCapture(reads=False, once=once))
        calls = counted(adapter)
        found = self.losses(adapter, 1, TargetCapture(reads=False, once=once), size)
        assert len(calls) == 2
        for name, terms in self.losses(adapter, 1, None, size).items():
            assert all(torch.equal(*pair) for pair in zip(found[name], terms)), name

    def test_targets_that_a_loss_has_written_into_are_assigned_anew(self):
        adapter, once = DetectionAdapter(build_model(tiny_retinanet()).train()), AssignedOnce()
        self.losses(adapter, 1, TargetCapture(reads=False, once=once))
        calls = counted(adapter)
        once._known[2][0][0].fill_(0)
        self.losses(adapter, 1, TargetCapture(reads=False, once=once))
        assert len(calls) == 2

    @pytest.mark.parametrize('name', ['tood', 'rtmdet', 'vfnet'])
    def test_heads_that_look_at_predictions_assign_each_time(self, name):
        assert not assigns_alone(build_model(stock(name)).bbox_head)

    def test_a_sampler_that_draws_at_random_draws_each_time(self):
        assert not assigns_alone(build_model(tiny_faster_rcnn()).rpn_head)

    def test_nor_is_an_exchanged_function_trusted(self):
        head = build_model(tiny_retinanet()).bbox_head
        assert assigns_alone(head)
        head.get_targets = lambda *args, **kwargs: None
        assert not assigns_alone(head)

    def test_two_heads_assign_alike_whatever_their_width(self):
        small, wide = (build_model(tiny_retinanet(8, width)).bbox_head for width in (16, 24))
        assert assign_alike(small, wide) and not assign_alike(small, build_model(tiny_gfl()).bbox_head)
        assert not assign_alike(None, None)

    @pytest.mark.parametrize(
        'change',
        [
            dict(anchor_generator=dict(tiny_retinanet()['bbox_head']['anchor_generator'], ratios=[0.5, 1.0, 4.0])),
            dict(bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2])),
            dict(num_classes=7),
            dict(reg_decoded_bbox=True),
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_and_not_with_other(self, change):
        one, other = (build_model(tiny_retinanet(**head)).bbox_head for head in ({}, change))
        assert not assign_alike(one, other)

    def test_and_not_with_another_assigner(self):
        other = tiny_retinanet()
        other['train_cfg']['assigner']['pos_iou_thr'] = 0.6
        assert not assign_alike(build_model(tiny_retinanet()).bbox_head, build_model(other).bbox_head)


class TestReading:
    LABELS = [torch.tensor([[0, 2], [2, 1]]), torch.tensor([[2], [2]])]
    WEIGHTS = [torch.tensor([[1.0, 1.0], [1.0, 0.0]]), torch.tensor([[1.0], [0.0]])]

    def test_ignored_predictions_are_not_counted(self):
        found = read_targets((self.LABELS, self.WEIGHTS, 5), [4, 2], 2)
        assert found.num_pos.item() == 1 and found.labels[0].tolist() == [0, 2, 2, 1]
        assert found.label_weights[1].tolist() == [1.0, 0.0]

    def test_anchors_may_stand_in_front(self):
        anchors = [torch.zeros(2, 2, 4), torch.zeros(2, 1, 4)]
        assert read_targets((anchors, self.LABELS, self.WEIGHTS), [4, 2], 2).labels[0].tolist() == [0, 2, 2, 1]

    def test_without_weights_all_count(self):
        boxes = [torch.zeros(4, 4), torch.zeros(2, 4)]
        found = read_targets((self.LABELS, boxes), [4, 2], 2)
        assert found.num_pos.item() == 2 and found.label_weights[0].tolist() == [1, 1, 1, 1]

    def test_at_least_one_is_counted(self):
        background = [torch.full((2, 2), 2), torch.full((2, 1), 2)]
        assert read_targets((background, self.WEIGHTS), [4, 2], 2).num_pos.item() == 1

    @pytest.mark.parametrize('returned', [None, (), ([torch.zeros(4, dtype=torch.long)],), (torch.zeros(4),)])
    def test_anything_else_is_none(self, returned):
        assert read_targets(returned, [4, 2], 2) is None


def test_instances_of_a_batch_that_is_one_dictionary():
    batch = detection_batch()
    adapter = DetectionAdapter(build_model(tiny_retinanet()))
    expected = [sample.gt_instances for sample in batch['data_samples']]
    assert all(a is b for a, b in zip(adapter.targets(batch['data_samples']), expected))
    rows = [
        torch.cat([torch.full((2, 1), i), e.labels[:, None].float(), e.bboxes], dim=1) for i, e in enumerate(expected)
    ]
    found = adapter.targets(dict(bboxes_labels=torch.cat(rows), img_metas=[{}, {}, {}]))
    assert len(found) == 3 and len(found[2]) == 0
    assert all(torch.equal(a.bboxes, b.bboxes) and torch.equal(a.labels, b.labels) for a, b in zip(found, expected))
