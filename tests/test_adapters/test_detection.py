from copy import deepcopy

import pytest
import torch
from mmengine.hub import get_config
from mmengine.structures import InstanceData
from torch import nn

from mmrkd.adapters.detection import DetectionAdapter
from mmrkd.structures import Level
from mmrkd.testing import NUM_CLASSES, build_model, detection_batch, model_inputs, tiny_faster_rcnn, tiny_retinanet


def adapter_of(cfg, seed=0, train=True):
    return DetectionAdapter(build_model(cfg, seed).train(train))


def tiny_mask_rcnn(name):
    """Mask R-CNN or Cascade Mask R-CNN on the body of the tiny Faster R-CNN."""
    cfg, small = get_config(name).model.to_dict(), tiny_faster_rcnn()
    for key in ('_scope_', 'data_preprocessor', 'backbone', 'neck', 'rpn_head'):
        cfg[key] = small[key]
    roi_head = cfg['roi_head']
    for extractor in ('bbox_roi_extractor', 'mask_roi_extractor'):
        roi_head[extractor]['out_channels'] = 16
    heads = roi_head['bbox_head']
    for head in heads if isinstance(heads, list) else [heads]:
        head.update(in_channels=16, fc_out_channels=32, num_classes=NUM_CLASSES)
    roi_head['mask_head'].update(in_channels=16, conv_out_channels=8, num_convs=1, num_classes=NUM_CLASSES)
    stages = cfg['train_cfg']['rcnn']
    for stage in stages if isinstance(stages, list) else [stages]:
        stage['sampler']['num'] = 16
    cfg['train_cfg']['rpn_proposal'].update(nms_pre=50, max_per_img=50)
    cfg['test_cfg']['rpn'].update(nms_pre=50, max_per_img=50)
    return cfg


def tiny_detr():
    cfg = get_config('mmdet::detr/detr_r50_8xb2-150e_coco.py').model.to_dict()
    small = tiny_retinanet()
    cfg.update(_scope_='mmdet', data_preprocessor=small['data_preprocessor'], backbone=small['backbone'])
    cfg['backbone']['out_indices'] = (3,)
    cfg['neck'].update(in_channels=[64], out_channels=16)
    for part in ('encoder', 'decoder'):
        cfg[part]['num_layers'] = 1
        layer = cfg[part]['layer_cfg']
        for name in ('self_attn_cfg', 'cross_attn_cfg'):
            if name in layer:
                layer[name].update(embed_dims=16, num_heads=2)
        layer['ffn_cfg'].update(embed_dims=16, feedforward_channels=16)
    cfg['positional_encoding']['num_feats'] = 8
    cfg['num_queries'] = 10
    cfg['bbox_head'].update(num_classes=NUM_CLASSES, embed_dims=16)
    cfg['test_cfg']['max_per_img'] = 10
    return cfg


def assert_same_losses(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        pairs = zip(found[name], value) if isinstance(value, list) else [(found[name], value)]
        for a, b in pairs:
            assert torch.equal(a, b), name


def count_calls(module):
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize('cfg', [tiny_retinanet, tiny_faster_rcnn, tiny_detr])
class TestOneBackbonePass:
    def test_task_loss_on_own_features_is_the_models_loss(self, cfg):
        adapter = adapter_of(cfg())
        inputs, samples = model_inputs(adapter.model, detection_batch())
        torch.manual_seed(7)  # two-stage detectors sample proposals
        expected = adapter.model.loss(inputs, deepcopy(samples))
        feats = adapter.extract(inputs)
        backbone, neck = count_calls(adapter.model.backbone), count_calls(adapter.model.neck)
        torch.manual_seed(7)
        losses, _ = adapter.task_loss(feats, inputs, deepcopy(samples))
        assert_same_losses(losses, expected)
        assert not backbone and not neck
        assert 'extract_feat' not in vars(adapter.model)

    def test_prediction_from_own_features_is_the_models_prediction(self, cfg):
        adapter = adapter_of(cfg(), train=False)
        inputs, samples = model_inputs(adapter.model, detection_batch(), training=False)
        with torch.no_grad():
            expected = adapter.model.predict(inputs, deepcopy(samples))
            feats = adapter.extract(inputs)
            backbone = count_calls(adapter.model.backbone)
            found = adapter.predict(feats, inputs, deepcopy(samples))
        assert not backbone
        assert any(len(sample.pred_instances) for sample in expected)
        for a, b in zip(found, expected):
            for key in ('bboxes', 'scores', 'labels'):
                assert torch.equal(a.pred_instances[key], b.pred_instances[key])

    def test_gradients_reach_the_features(self, cfg):
        adapter = adapter_of(cfg())
        inputs, samples = model_inputs(adapter.model, detection_batch())
        feats = [f.detach().requires_grad_() for f in adapter.extract(inputs)]
        losses, _ = adapter.task_loss(tuple(feats), inputs, samples)
        adapter.model.parse_losses(losses)[0].backward()
        assert sum(f.grad is not None and f.grad.abs().sum() > 0 for f in feats) >= 1
        assert all(p.grad is None for p in adapter.model.backbone.parameters())


class TestTaskLoss:
    @pytest.mark.parametrize('cfg, head', [(tiny_retinanet, 'bbox_head'), (tiny_faster_rcnn, 'rpn_head')])
    def test_the_outputs_of_the_dense_head_come_along(self, cfg, head):
        adapter = adapter_of(cfg())
        assert adapter.head is getattr(adapter.model, head)
        inputs, samples = model_inputs(adapter.model, detection_batch())
        feats = adapter.extract(inputs)
        _, outputs = adapter.task_loss(feats, inputs, samples)
        for found, expected in zip(outputs, adapter.head_outputs(feats)):
            assert len(found) == len(expected) == len(feats)
            assert all(torch.equal(a, b) for a, b in zip(found, expected))
        assert not adapter.head._forward_hooks

    def test_an_error_leaves_neither_features_nor_hooks_behind(self):
        adapter = adapter_of(tiny_retinanet())
        inputs, samples = model_inputs(adapter.model, detection_batch())
        feats = adapter.extract(inputs)
        with pytest.raises(AssertionError):
            adapter.task_loss(feats[:2], inputs, samples)  # fewer levels than the head has anchors for
        assert 'extract_feat' not in vars(adapter.model)
        assert not adapter.head._forward_hooks
        adapter.task_loss(feats, inputs, samples)

    def test_a_detector_without_a_dense_head(self):
        cfg = tiny_faster_rcnn()
        cfg['type'] = 'FastRCNN'
        del cfg['rpn_head']
        for part in ('train_cfg', 'test_cfg'):
            cfg[part] = {'rcnn': cfg[part]['rcnn']}
        adapter = adapter_of(cfg)
        batch = detection_batch()
        for sample in batch['data_samples']:
            sample.proposals = InstanceData(bboxes=sample.gt_instances.bboxes + 1, scores=torch.ones(2))
        inputs, samples = model_inputs(adapter.model, batch)
        losses, outputs = adapter.task_loss(adapter.extract(inputs), inputs, samples)
        assert set(losses) == {'loss_cls', 'acc', 'loss_bbox'}
        assert adapter.head is None and outputs is None


@pytest.mark.parametrize(
    'name',
    ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py'],
    ids=['mask rcnn', 'cascade mask rcnn'],
)
class TestMaskHead:
    def test_it_stays_out_where_the_batch_has_no_masks_and_is_back_afterwards(self, name):
        adapter = adapter_of(tiny_mask_rcnn(name))
        mask_head, keys = adapter.model.roi_head.mask_head, list(adapter.model.state_dict())
        inputs, samples = model_inputs(adapter.model, detection_batch())
        losses, _ = adapter.judge(adapter.extract(inputs), inputs, samples)
        assert any(key.endswith('loss_bbox') for key in losses)
        assert not any('mask' in key for key in losses)
        assert adapter.model.roi_head.mask_head is mask_head
        assert list(adapter.model.state_dict()) == keys
        assert any('mask_head' in key for key in keys)

    def test_it_is_back_after_an_error(self, name):
        adapter = adapter_of(tiny_mask_rcnn(name))
        mask_head = adapter.model.roi_head.mask_head
        inputs, samples = model_inputs(adapter.model, detection_batch())
        with pytest.raises(Exception, match='.'):
            adapter.judge((), inputs, samples)
        assert adapter.model.roi_head.mask_head is mask_head
        assert adapter.model.roi_head.with_mask

    def test_it_is_trained_where_the_batch_has_masks(self, name):
        from mmdet.structures.mask import BitmapMasks

        adapter = adapter_of(tiny_mask_rcnn(name))
        inputs, samples = model_inputs(adapter.model, detection_batch())
        for sample in samples:
            masks = torch.zeros(2, 96, 96, dtype=torch.uint8)
            for mask, box in zip(masks, sample.gt_instances.bboxes.int()):
                mask[box[1] : box[3], box[0] : box[2]] = 1
            sample.gt_instances.masks = BitmapMasks(masks.numpy(), 96, 96)
        losses, _ = adapter.task_loss(adapter.extract(inputs), inputs, samples)
        masks = [value for key, value in losses.items() if 'loss_mask' in key]
        assert masks and all(torch.isfinite(value).all() and value > 0 for value in masks)


class Counting(nn.Module):
    """A head that has a norm, dropout and a loss which counts, and that computes its loss in training alone."""

    def __init__(self, seen=None):
        super().__init__()
        self.norm, self.dropout = nn.BatchNorm2d(2), nn.Dropout(0.5)
        self.register_buffer('count', torch.zeros(2))
        self.report = (seen if seen is not None else []).append

    def loss(self, feats, samples):
        self.report((self.training, self.norm.training, self.dropout.training))
        self.count += 1
        return {'loss': self.dropout(self.norm(feats[0])).mean()}


class Detector(nn.Module):
    def __init__(self, **heads):
        super().__init__()
        self.backbone = nn.Conv2d(3, 2, 1)
        for name, head in heads.items():
            setattr(self, name, head)

    def extract_feat(self, inputs):
        return (self.backbone(inputs),)

    def loss(self, inputs, samples):
        return self.bbox_head.loss(self.extract_feat(inputs), samples)


class TestJudge:
    def judge(self, model):
        inputs, samples = torch.rand(2, 3, 4, 4), detection_batch()['data_samples']
        adapter = DetectionAdapter(model.eval())
        return adapter.judge(adapter.extract(inputs), inputs, samples)[0]

    def test_heads_are_as_in_training_but_layers_are_not(self):
        seen = []
        model = Detector(bbox_head=Counting(seen))
        self.judge(model)
        assert seen == [(True, False, False)]
        assert not any(module.training for module in model.modules())

    def test_nothing_moves(self):
        model = Detector(bbox_head=Counting())
        before = {name: value.clone() for name, value in model.state_dict().items()}
        losses = self.judge(model)
        losses['loss'].backward()
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        model.bbox_head.loss((torch.rand(1, 2, 4, 4),), None)
        assert model.bbox_head.count.tolist() == [1.0, 1.0]  # what would happen otherwise

    def test_flags_and_buffers_are_back_after_an_error(self):
        model = Detector(bbox_head=Counting())
        model.bbox_head.norm.weight.data = torch.ones(5)  # of another width than the features
        with pytest.raises(RuntimeError):
            self.judge(model)
        assert not any(module.training for module in model.modules()) and model.bbox_head.count.sum() == 0

    @pytest.mark.parametrize('name', ['vfnet/vfnet_r50_fpn_1x_coco.py', 'ghm/retinanet_r50_fpn_ghm-1x_coco.py'])
    def test_it_is_the_loss_of_training(self, name):
        small, cfg = tiny_retinanet(strides=(8, 16, 32, 64, 128)), get_config(f'mmdet::{name}').model.to_dict()
        cfg.update(_scope_='mmdet', **{key: small[key] for key in ('data_preprocessor', 'backbone', 'neck')})
        cfg['bbox_head'].update(num_classes=NUM_CLASSES, in_channels=16, feat_channels=32, stacked_convs=1)
        adapter = adapter_of(cfg, train=False)
        inputs, samples = model_inputs(adapter.model, detection_batch())
        feats = adapter.extract(inputs)
        before = {key: value.clone() for key, value in adapter.model.state_dict().items()}
        found, _ = adapter.judge(feats, inputs, samples)
        assert all(torch.equal(value, before[key]) for key, value in adapter.model.state_dict().items())
        adapter.model.bbox_head.train()  # it has no norm but GN, and no dropout
        assert_same_losses(found, adapter.model.bbox_head.loss(feats, samples))

    @pytest.mark.parametrize(
        'model, missing',
        [
            (Detector(mask_head=nn.Sequential(nn.Conv2d(1, 1, 1))), 'gt_instances.masks'),
            (Detector(bbox_head=Counting(), semantic_head=Counting()), 'gt_sem_seg'),
        ],
    )
    def test_ground_truth_that_is_missing_is_named(self, model, missing):
        for name, child in model.named_children():
            child.loss_mask = name == 'mask_head' or None
            if child.loss_mask is None:
                del child.loss_mask
        with pytest.raises(ValueError, match=rf"Detector needs \['{missing}'\].*twi_on=.none"):
            self.judge(model)


class TestHead:
    def test_it_is_found_by_its_place(self):
        first, second = Counting(), Counting()
        assert DetectionAdapter(Detector(mask_head=first)).head is first
        assert DetectionAdapter(Detector(rpn_head=first, roi_head=second)).head is first
        assert DetectionAdapter(Detector(semantic_head=first, panoptic_head=second)).head is second
        assert DetectionAdapter(Detector(roi_head=first)).head is None


class TestFeatures:
    def test_of_several_branches_the_one_that_predicts_is_distilled(self):
        model = Detector(bbox_head=Counting())
        model.num_branch, model.test_branch_idx = 3, 1
        batch = torch.arange(6.0).view(6, 1, 1, 1)  # two images, one branch after the other
        assert DetectionAdapter(model.train()).features((batch,))[0].flatten().tolist() == [2.0, 3.0]
        assert DetectionAdapter(model.eval()).features((batch[:2],))[0].flatten().tolist() == [0.0, 1.0]
        model.train().test_branch_idx = -1
        assert len(DetectionAdapter(model).features((batch,))[0]) == 6

    def test_levels_are_the_maps_of_the_neck_finest_first(self):
        adapter = adapter_of(tiny_retinanet())
        feats = adapter.extract(torch.rand(2, 3, 64, 64))
        assert all(a is b for a, b in zip(adapter.features(feats), feats))
        assert [f.shape[-1] for f in adapter.features(feats)] == [8, 4, 2]

    def test_replace_puts_some_in_and_keeps_the_others(self):
        adapter = DetectionAdapter(torch.nn.Module())
        a, b, c, new = (torch.full((1, 2, 4, 4), float(i)) for i in range(4))
        replaced = adapter.replace((a, b, c), {1: new})
        assert isinstance(replaced, tuple)
        assert replaced[0] is a and replaced[1] is new and replaced[2] is c
        listed = adapter.replace([a, None, {'p': b}], {1: new})
        assert isinstance(listed, list) and listed[0] is a and listed[1] is None and listed[2] == {'p': new}

    def test_replaced_features_are_what_the_head_sees(self):
        adapter = adapter_of(tiny_retinanet(), train=False)
        feats = adapter.extract(torch.rand(1, 3, 64, 64))
        zeroed = adapter.replace(feats, {0: torch.zeros_like(feats[0])})
        scores, expected = adapter.head_outputs(zeroed)[0], adapter.head_outputs(feats)[0]
        assert not torch.equal(scores[0], expected[0])
        assert torch.equal(scores[1], expected[1])

    def test_a_detr_has_one_level(self):
        adapter = adapter_of(tiny_detr())
        assert adapter.levels(adapter.dry_run()[0]) == (Level(16, 32),)


class TestOutputs:
    def test_logits_are_one_row_for_each_anchor(self):
        adapter = adapter_of(tiny_retinanet())
        outputs = adapter.head_outputs(adapter.extract(torch.rand(2, 3, 64, 64)))
        logits = adapter.logits(outputs)
        assert [tuple(level.shape) for level in logits] == [(2 * s * s * 3, NUM_CLASSES) for s in (8, 4, 2)]
        scores = outputs[0][1]  # level of 4 x 4 cells: image 1, row 2, column 3, anchor 2
        row = ((1 * 4 + 2) * 4 + 3) * 3 + 2
        assert torch.equal(logits[1][row], scores[1, 2 * NUM_CLASSES : 3 * NUM_CLASSES, 2, 3])

    def test_logits_of_a_two_stage_detector_are_those_of_its_rpn(self):
        adapter = adapter_of(tiny_faster_rcnn())
        outputs = adapter.head_outputs(adapter.extract(torch.rand(1, 3, 64, 64)))
        logits = adapter.logits(outputs)
        assert [tuple(level.shape) for level in logits] == [(s * s * 3, 1) for s in (16, 8, 4, 2, 1)]
        assert adapter.sigmoid

    @pytest.mark.parametrize('cfg', [tiny_retinanet, tiny_faster_rcnn, tiny_detr])
    def test_number_of_classes(self, cfg):
        assert adapter_of(cfg()).num_classes == NUM_CLASSES

    def test_number_of_classes_of_a_cascade(self):
        cfg = tiny_mask_rcnn('mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py')
        assert adapter_of(cfg).num_classes == NUM_CLASSES

    def test_sigmoid_and_softmax_heads(self):
        softmax = tiny_retinanet()
        softmax['bbox_head']['loss_cls'] = dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)
        assert adapter_of(tiny_retinanet()).sigmoid
        assert not adapter_of(softmax).sigmoid


class TestLayout:
    def layout(self, cfg, seed=0):
        return adapter_of(cfg, seed).dry_run()[1]

    def test_heads_of_other_width_line_up(self):
        assert self.layout(tiny_retinanet(8, 16)) == self.layout(tiny_retinanet(12, 24), seed=1)

    def test_what_makes_heads_differ(self):
        other_classes, other_anchors, other_coder = tiny_retinanet(), tiny_retinanet(), tiny_retinanet()
        other_classes['bbox_head']['num_classes'] = NUM_CLASSES + 1
        other_anchors['bbox_head']['anchor_generator']['octave_base_scale'] = 8
        other_coder['bbox_head']['bbox_coder']['target_stds'] = (0.1, 0.1, 0.2, 0.2)
        own = self.layout(tiny_retinanet())

        def differing(cfg):
            other = self.layout(cfg)
            return {key for key in own if own[key] != other[key]}

        assert differing(tiny_retinanet()) == set()
        assert differing(other_classes) == {'outputs', 'classes'}
        assert differing(other_anchors) == {'priors'}
        assert differing(other_coder) == {'box coder'}
        assert differing(tiny_retinanet(strides=(8, 16, 32, 64))) == {'outputs', 'priors'}

    def test_a_head_without_a_grid_says_so(self):
        assert self.layout(tiny_detr()) == {'dense head': 'none (DETRHead)'}


class TestBlend:
    def test_a_blend_of_equal_outputs_predicts_the_same(self):
        adapter = adapter_of(tiny_retinanet(), train=False)
        inputs, samples = model_inputs(adapter.model, detection_batch(), training=False)
        with torch.no_grad():
            feats = adapter.extract(inputs)
            expected = adapter.predict(feats, inputs, deepcopy(samples))
            outputs = adapter.head_outputs(feats)
            found = adapter.blend(outputs, outputs, 0.5, deepcopy(samples))
        for a, b in zip(found, expected):
            assert len(b.pred_instances) > 0
            assert torch.allclose(a.pred_instances.scores, b.pred_instances.scores, atol=1e-6)
            assert torch.allclose(a.pred_instances.bboxes, b.pred_instances.bboxes, atol=1e-3)

    def test_alpha_is_the_share_of_the_second(self):
        adapter = adapter_of(tiny_retinanet(), train=False)
        inputs, samples = model_inputs(adapter.model, detection_batch(), training=False)
        with torch.no_grad():
            feats = adapter.extract(inputs)
            own = adapter.head_outputs(feats)
            other = tuple([level + 2.0 for level in part] for part in own)
            shifted = tuple([level + 0.5 for level in part] for part in own)
            found = adapter.blend(own, other, 0.25, deepcopy(samples))
            expected = adapter.blend(shifted, shifted, 0.5, deepcopy(samples))
        for a, b in zip(found, expected):
            assert len(b.pred_instances) > 0
            assert torch.allclose(a.pred_instances.scores, b.pred_instances.scores, atol=1e-5)

    def test_a_two_stage_detector_says_that_it_cannot(self):
        assert 'one-stage' in adapter_of(tiny_faster_rcnn()).blend_obstacle
        assert adapter_of(tiny_retinanet()).blend_obstacle is None


class TestBatchAsOneDictionary:
    """mmyolo hands over one dictionary of tensors, and no list of samples."""

    def samples(self):
        rows = torch.tensor([[0.0, 1, 2, 3, 20, 30], [1.0, 3, 5, 5, 40, 40]])
        return dict(bboxes_labels=rows, img_metas=[dict(batch_input_shape=(64, 64))] * 2)

    def adapter(self, **heads):
        return DetectionAdapter(Detector(bbox_head=Counting(), **heads))

    def test_a_loss_gets_the_dictionary(self):
        adapter, samples, seen = self.adapter(), self.samples(), []
        adapter.model.bbox_head.loss = lambda feats, given: seen.append(given) or {'loss': feats[0].sum()}
        inputs = torch.rand(2, 3, 4, 4)
        feats = adapter.extract(inputs)
        for compute in (adapter.task_loss, adapter.judge):
            compute(feats, inputs, samples)
        assert all(given is not samples and given['bboxes_labels'] is samples['bboxes_labels'] for given in seen)
        assert len(seen) == 2 and all(given['img_metas'] == samples['img_metas'] for given in seen)

    def test_ground_truth_that_is_missing_is_named(self):
        mask_head = nn.Sequential(nn.Conv2d(1, 1, 1))
        mask_head.loss_mask = True
        adapter = self.adapter(mask_head=mask_head)
        inputs = torch.rand(2, 3, 4, 4)
        with pytest.raises(ValueError, match=r"needs \['gt_instances.masks'\]"):
            adapter.judge(adapter.extract(inputs), inputs, self.samples())
        adapter.judge(adapter.extract(inputs), inputs, dict(self.samples(), masks=torch.zeros(2, 4, 4)))


class TestInputsThatArePaddedFurther:
    """A teacher with a larger divisor sees more padding than the samples, which are the student's, know of."""

    def test_a_detr_sees_the_shape_of_its_own_inputs(self):
        adapter = adapter_of(tiny_detr(), train=False)
        inputs, samples = model_inputs(adapter.model, detection_batch(), training=False)
        wider = torch.nn.functional.pad(inputs, (0, 64, 0, 32))
        expected = [sample.clone() for sample in samples]
        for sample in expected:
            sample.set_metainfo(dict(batch_input_shape=(128, 160)))
        with torch.no_grad():
            feats = adapter.extract(wider)
            found = adapter.predict(feats, wider, samples)
            expected = adapter.model.predict(wider, expected)
        for a, b in zip(found, expected):
            assert torch.equal(a.pred_instances.scores, b.pred_instances.scores)
        assert all(tuple(sample.batch_input_shape) == (96, 96) for sample in samples)
        losses, _ = adapter.judge(feats, wider, samples)
        assert all(torch.isfinite(value).all() for value in losses.values())
        assert all(tuple(sample.batch_input_shape) == (96, 96) for sample in samples)

    def test_where_the_shape_is_that_of_the_inputs_samples_are_passed_on(self):
        adapter = adapter_of(tiny_retinanet())
        inputs, samples = model_inputs(adapter.model, detection_batch())
        assert adapter.samples_for(inputs, samples) is samples
        assert adapter.samples_for(torch.zeros(2, 3, 128, 96), samples)[0].batch_input_shape == (128, 96)


class TestGrid:
    def test_logits_keep_their_grid(self):
        adapter = adapter_of(tiny_retinanet())
        outputs = adapter.head_outputs(adapter.extract(torch.rand(2, 3, 64, 64)))
        maps = adapter.logit_maps(outputs)
        assert [tuple(level.shape) for level in maps] == [(2, 3 * NUM_CLASSES, s, s) for s in (8, 4, 2)]
        assert all(a is b for a, b in zip(maps, outputs[0])), 'logits that are plain stay what they are'

    def test_of_a_head_without_one_an_error_says_so(self):
        adapter = adapter_of(tiny_detr())
        with pytest.raises(ValueError, match=r'none \(DETRHead\): its outputs cannot be compared'):
            adapter.logits(None)
        assert adapter.box_obstacle is None


def test_scores_that_are_probabilities_are_blended_as_logits():
    from mmrkd.support.trial import lighten, load_stock_config, small_variant

    cfg = small_variant(lighten(load_stock_config('mmdet::tood/tood_r50_fpn_1x_coco.py')))
    adapter = adapter_of(cfg, train=False)
    inputs, samples = model_inputs(adapter.model, detection_batch(size=128), training=False)
    mixed = []
    adapter.model.bbox_head.predict_by_feat = lambda scores, *_, **__: mixed.extend(scores) or [InstanceData()] * 2
    with torch.no_grad():
        own = adapter.head_outputs(adapter.extract(inputs))
        half = torch.full_like(own[0][0], 0.5)
        other = ([half, *own[0][1:]], own[1])
        adapter.blend(own, other, 0.25, samples)
    assert torch.allclose(mixed[0], (0.75 * own[0][0].logit()).sigmoid(), atol=1e-4)
    assert torch.allclose(mixed[1], own[0][1], atol=1e-4)


def test_a_detector_of_words_says_that_it_has_none():
    """A Grounding DINO beside data without ``text`` ended in an AttributeError in the step."""
    model = Detector(bbox_head=Counting())
    model.language_model = nn.Identity()
    adapter = DetectionAdapter(model.eval())
    inputs, samples = torch.rand(2, 3, 4, 4), detection_batch()['data_samples']
    feats = adapter.extract(inputs)
    with pytest.raises(ValueError, match=r"Detector needs \['text'\].*return_classes=True.*FitNets"):
        adapter.judge(feats, inputs, samples)
    with pytest.raises(ValueError, match="no 'text': a dataset with return_classes=True"):
        adapter.predict(feats, inputs, samples)
    for sample in samples:
        sample.set_metainfo(dict(text=('cat', 'dog')))
    assert adapter.judge(feats, inputs, samples)[0]['loss'].requires_grad
