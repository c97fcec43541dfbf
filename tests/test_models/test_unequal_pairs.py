"""Student and teacher that differ in more than their size: heads, levels, strides, widths, kinds of backbone, input."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config

from mmrkd.models import DistillMethod
from mmrkd.models.pair import HeadsDiffer
from mmrkd.models.teacher import load_model_config
from mmrkd.testing import (
    NUM_CLASSES,
    build_distiller,
    classification_batch,
    detection_batch,
    model_inputs,
    save_random_teacher,
    tiny_classifier,
    tiny_retinanet,
)

ERA = dict(type='mmrkd.ERA', num_branches=2)
FITNETS = dict(type='mmrkd.FitNets')
CAFFE = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)


class Watch(DistillMethod):
    """Keeps the views that it is shown."""

    def losses(self, student, teacher, samples):
        self.views = student, teacher
        return {'loss_watch': student.feats[0].sum() * 0}


def tiny_fcos(width=16, neck_width=24):
    cfg = tiny_retinanet(width, neck_width)
    cfg.update(type='FCOS', train_cfg=None)
    cfg['bbox_head'] = dict(
        type='FCOSHead',
        num_classes=NUM_CLASSES,
        in_channels=neck_width,
        feat_channels=neck_width,
        stacked_convs=1,
        strides=[8, 16, 32],
        regress_ranges=((-1, 32), (32, 64), (64, 1e8)),
        norm_on_bbox=True,
        norm_cfg=None,
        bbox_coder=dict(type='DistancePointBBoxCoder'),
    )
    return cfg


def tiny_swin_retinanet(neck_width=24):
    cfg = tiny_retinanet(8, neck_width)
    arch = dict(embed_dims=16, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), window_size=4, out_indices=(1, 2, 3))
    cfg['backbone'] = dict(type='SwinTransformer', drop_path_rate=0.5, **arch)
    cfg['neck'].update(in_channels=[32, 64, 128], start_level=0)
    return cfg


def tiny_ssd(width=8):
    """SSD's head on three stages of a ResNet: no neck, unequal widths."""
    cfg = tiny_retinanet(width)
    del cfg['neck']
    cfg['type'] = 'SingleStageDetector'
    cfg['backbone']['out_indices'] = (1, 2, 3)
    cfg['bbox_head'] = dict(
        type='SSDHead',
        num_classes=NUM_CLASSES,
        in_channels=(2 * width, 4 * width, 8 * width),
        anchor_generator=dict(
            type='SSDAnchorGenerator',
            scale_major=False,
            input_size=96,
            min_sizes=[10, 30, 60],
            max_sizes=[30, 60, 90],
            strides=[8, 16, 32],
            ratios=[[2], [2], [2]],
        ),
    )
    cfg['train_cfg'].update(smoothl1_beta=1.0, neg_pos_ratio=3)
    return cfg


def tiny_vit(**backbone):
    cfg = tiny_classifier()
    arch = dict(embed_dims=32, num_layers=1, num_heads=2, feedforward_channels=32)
    cfg['backbone'] = dict(type='VisionTransformer', arch=arch, img_size=32, patch_size=8, **backbone)
    cfg['neck'] = None
    cfg['head'] = dict(type='VisionTransformerClsHead', num_classes=NUM_CLASSES, in_channels=32)
    return cfg


def one_step(student, teacher, methods, batch, folder, **kwargs):
    """Builds a pair, takes one step, and returns the distiller and its finite losses."""
    saved = save_random_teacher(teacher, folder, seed=3)
    saved.update(kwargs.pop('teacher_args', {}))
    distiller = build_distiller(student, saved, methods, **kwargs).train()
    before = distiller.teacher.fingerprint()
    inputs, samples = model_inputs(distiller, batch)
    total, terms = distiller.parse_losses(distiller(inputs, samples, mode='loss'))
    assert all(torch.isfinite(value) for value in terms.values())
    total.backward()
    assert next(distiller.student.backbone.parameters()).grad.abs().sum() > 0
    assert all(p.grad is None for p in distiller.teacher.model.parameters())
    assert distiller.teacher.fingerprint() == before
    return distiller, terms


class TestOtherHeads:
    def test_a_weight_for_the_dense_term_is_refused_with_the_reason(self, tmp_path):
        with pytest.raises(HeadsDiffer, match='KL term of ERA.*do not line up.*priors: student'):
            one_step(tiny_retinanet(), tiny_fcos(), [dict(ERA, w_kd=1.0)], detection_batch(), tmp_path)

    def test_features_and_twi_work(self, tmp_path, capsys):
        distiller, terms = one_step(tiny_retinanet(), tiny_fcos(), [ERA], detection_batch(), tmp_path)
        own = {name for name in terms if name.startswith('era.')}
        assert own == {f'era.loss_{n}' for n in ('feat', 'res_1', 'res_2', 'twi_2')}
        era = distiller.methods[0]
        assert era.w_kd == 0 and 'blend' not in distiller.variants
        assert 'priors: student' in era.refused['blend'] and 'AnchorGenerator' in era.refused['blend']
        distiller.set_variant('integrated')
        inputs, samples = model_inputs(distiller.eval(), detection_batch(), training=False)
        assert len(distiller(inputs, samples, mode='predict')) == 2

    def test_twi_is_the_loss_that_the_teacher_would_be_trained_with(self, tmp_path):
        """FCOS scales its boxes differently in training and at inference; its loss is made for the former."""
        distiller, _ = one_step(tiny_retinanet(), tiny_fcos(), [Watch()], detection_batch(), tmp_path)
        _, view = distiller.methods[0].views
        model = distiller.teacher.model
        inputs, samples = model_inputs(distiller, detection_batch())
        found, _ = distiller.teacher.adapter.judge(view.all_feats, inputs, samples)
        assert not any(module.training for module in model.modules())
        model.bbox_head.train()
        expected = model.bbox_head.loss(view.all_feats, samples)
        model.bbox_head.eval()
        wrong = model.bbox_head.loss(view.all_feats, samples)
        assert {name: value.item() for name, value in found.items()} == {k: v.item() for k, v in expected.items()}
        assert abs(wrong['loss_bbox'] - expected['loss_bbox']) > 1e-4


class TestOtherLevels:
    def test_levels_are_matched_by_stride(self, tmp_path):
        student = tiny_retinanet(strides=(8, 16, 32, 64, 128))
        teacher = tiny_retinanet(16, 24, strides=(4, 8, 16, 32, 64))
        distiller, terms = one_step(student, teacher, [ERA], detection_batch(), tmp_path)
        assert distiller.match.pairs == ((0, 1), (1, 2), (2, 3), (3, 4))
        assert 'era.loss_twi_2' in terms and '5 levels, 4 of them matched' in distiller.methods[0].refused['integrated']

    @pytest.mark.parametrize('student, teacher', [((8, 16, 32), (4,)), ((4,), (8, 16, 32))])
    def test_without_a_common_stride_the_teacher_is_resized_on_request_alone(self, tmp_path, student, teacher):
        student, teacher = tiny_retinanet(strides=student), tiny_retinanet(16, 24, strides=teacher)
        for cfg in (student, teacher):
            if len(cfg['bbox_head']['anchor_generator']['strides']) == 1:
                cfg['neck']['end_level'] = 0
        with pytest.raises(ValueError, match='no feature level with the same stride.*resize='):
            one_step(student, teacher, [ERA], detection_batch(), tmp_path)
        distiller, terms = one_step(student, teacher, [ERA, Watch()], detection_batch(), tmp_path, resize='bilinear')
        own, view = distiller.methods[1].views
        (s, t), strides = distiller.match.pairs[0], (distiller.match.student_levels, distiller.match.teacher_levels)
        assert {strides[0][s].stride, strides[1][t].stride} == {4, 8} and len(own.feats) == 1
        mine = distiller.teacher.adapter.features(view.all_feats)[t]
        assert mine.shape[-1] == 96 // strides[1][t].stride  # its own head reads its own grid
        assert torch.equal(view.feats[0], F.interpolate(mine, own.feats[0].shape[-2:], mode='bilinear'))
        assert 'era.loss_twi_2' in terms and 'integrated' in distiller.methods[0].refused


class TestUnequalWidths:
    def test_levels_without_a_neck(self, tmp_path):
        batch = detection_batch()
        distiller, terms = one_step(tiny_ssd(8), tiny_ssd(12), [ERA, FITNETS], batch, tmp_path)
        assert distiller.match.student_channels == [16, 32, 64] and distiller.match.teacher_channels == [24, 48, 96]
        assert {'era.loss_res_2', 'era.loss_twi_2', 'fitnets.loss_feat'} <= set(terms)
        feats = distiller.pair.student_feats(distiller.student.extract_feat(torch.rand(2, 3, 96, 96)))
        estimates = distiller.methods[0].neck(feats)
        assert [h.shape[1:] for h in estimates] == [(24, 12, 12), (48, 6, 6), (96, 3, 3)]
        outputs = distiller.methods[0].teacher_head.outputs(estimates)
        assert outputs[0][0].shape == (2, 4 * (NUM_CLASSES + 1), 12, 12)


class TestTransformers:
    @pytest.mark.parametrize(
        'student, teacher',
        [(tiny_retinanet(), tiny_swin_retinanet()), (tiny_swin_retinanet(), tiny_retinanet())],
        ids=['swin teacher', 'swin student'],
    )
    def test_detectors(self, tmp_path, student, teacher):
        distiller, terms = one_step(student, teacher, [ERA, FITNETS, Watch()], detection_batch(), tmp_path)
        assert len(distiller.match.pairs) == 3 and {'era.loss_twi_2', 'fitnets.loss_feat'} <= set(terms)
        inputs, _ = model_inputs(distiller, detection_batch())
        expected = distiller.teacher.model.extract_feat(inputs)
        assert all(torch.equal(f, e) for f, e in zip(distiller.methods[2].views[1].feats, expected))

    @pytest.mark.parametrize(
        'student, teacher',
        [
            (tiny_classifier(), tiny_vit()),
            (tiny_vit(), tiny_classifier()),
            (tiny_vit(), tiny_vit(out_type='avg_featmap')),
        ],
        ids=['class token teaches', 'class token learns', 'mean of tokens'],
    )
    def test_classifiers(self, tmp_path, student, teacher):
        _, terms = one_step(student, teacher, [ERA, FITNETS], classification_batch(), tmp_path)
        assert {'era.loss_kd', 'era.loss_twi_2', 'fitnets.loss_feat'} <= set(terms)

    def test_tokens_are_refused_with_what_to_do(self, tmp_path):
        with pytest.raises(ValueError, match=r"tokens \(N, L, C\), set its out_type to 'cls_token'"):
            one_step(tiny_classifier(), tiny_vit(out_type='raw'), [FITNETS], classification_batch(), tmp_path)

    def test_class_and_distillation_token_are_two_features(self, tmp_path):
        teacher = tiny_vit()
        teacher['backbone']['type'] = 'DistilledVisionTransformer'
        teacher['head']['type'] = 'DeiTClsHead'
        distiller, terms = one_step(tiny_classifier(), teacher, [ERA], classification_batch(), tmp_path)
        assert [level.stride for level in distiller.match.teacher_levels] == [None, None]
        assert distiller.match.pairs == ((0, 0),) and 'era.loss_twi_2' in terms


class TestOtherInput:
    def test_a_teacher_with_an_input_size_of_its_own(self, tmp_path):
        teacher = tiny_vit()
        teacher['backbone']['img_size'] = 64
        methods, args = [ERA, Watch()], dict(input_size=(64, 64))
        distiller, _ = one_step(
            tiny_classifier(), teacher, methods, classification_batch(), tmp_path, teacher_args=args
        )
        own, view = distiller.methods[1].views
        assert own.inputs.shape[-2:] == (32, 32)
        expected = F.interpolate(own.inputs, (64, 64), mode='bilinear', antialias=True)
        assert torch.equal(view.inputs, expected)

    def test_an_input_size_does_not_go_with_maps(self, tmp_path):
        with pytest.raises(ValueError, match='input_size of its own'):
            args = dict(input_size=(64, 64))
            one_step(tiny_retinanet(), tiny_retinanet(), [ERA], detection_batch(), tmp_path, teacher_args=args)

    def test_a_keep_ratio_batch_of_an_rgb_student_and_a_bgr_teacher(self, tmp_path):
        """Images of unequal shape, padded to one another, in another channel order, scale and padding value."""
        student, teacher = tiny_retinanet(), tiny_retinanet(16, 24)
        teacher['data_preprocessor'] = dict(type='DetDataPreprocessor', pad_size_divisor=64, pad_value=3, **CAFFE)
        batch = detection_batch()
        for image, (height, width) in enumerate([(96, 60), (50, 96)]):
            batch['inputs'][image] = batch['inputs'][image][:, :height, :width].contiguous()
            batch['data_samples'][image].set_metainfo(dict(img_shape=(height, width)))
        distiller, terms = one_step(student, teacher, [ERA, Watch()], batch, tmp_path)
        own, view = distiller.methods[1].views
        inputs, _ = model_inputs(distiller.teacher.model, batch, training=False)
        assert inputs.shape[-2:] == (128, 128) and own.inputs.shape[-2:] == (96, 96)
        assert (view.inputs - inputs).abs().max() < 1e-3
        with torch.no_grad():
            expected = distiller.teacher.model.extract_feat(inputs)
        for found, feature, mine in zip(view.feats, expected, own.feats):
            assert found.shape[-2:] == mine.shape[-2:]
            cut = feature[..., : mine.shape[-2], : mine.shape[-1]]
            assert (found - cut).abs().max() <= 1e-4 * feature.abs().max()


class TestPlugIn:
    def test_hooks_of_stock_configs_find_the_parts_of_the_student(self, tmp_path):
        """YOLOX switches its L1 loss on through ``runner.model.bbox_head``."""
        distiller, _ = one_step(tiny_retinanet(), tiny_retinanet(12), [FITNETS], detection_batch(), tmp_path)
        assert distiller.bbox_head is distiller.student.bbox_head
        assert not any(key.startswith('student.') for key in distiller.state_dict())
        assert len(list(distiller.bbox_head.parameters())) > 0
        names = [name for name, _ in distiller.named_parameters()]
        assert len(names) == len(set(names)) and any(name.startswith('bbox_head.') for name in names)
        with pytest.raises(AttributeError, match="'RetinaNet' object has no attribute 'no_such_part'"):
            _ = distiller.no_such_part

    def test_one_config_can_be_built_twice(self, tmp_path):
        """Deformable DETR writes into the config that it is built from."""
        cfg = load_model_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
        whole = Config(dict(model=cfg))
        taken = load_model_config(whole)
        taken.bbox_head.num_classes = 3
        assert whole.model.bbox_head.num_classes == 80
