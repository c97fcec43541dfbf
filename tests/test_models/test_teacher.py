from copy import deepcopy

import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config
from torch import nn

from mmrkd.models import DistillMethod, FrozenTeacher
from mmrkd.models.heads import TeacherStatistics
from mmrkd.models.teacher import load_model_config
from mmrkd.testing import (
    NUM_CLASSES,
    build_distiller,
    build_model,
    classification_batch,
    detection_batch,
    model_inputs,
    save_random_teacher,
    tiny_classifier,
    tiny_faster_rcnn,
    tiny_retinanet,
)

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
CAFFE = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)


class Watch(DistillMethod):
    """Keeps the views that it is shown."""

    def losses(self, student, teacher, samples):
        self.views = student, teacher
        return {'loss_watch': student.feats[0].sum() * 0}


@pytest.fixture
def saved(tmp_path):
    return save_random_teacher(tiny_retinanet(12, 24), tmp_path, seed=5)


class TestLoading:
    def test_the_weights_are_those_of_the_checkpoint(self, saved):
        teacher = FrozenTeacher(**saved)
        weights = torch.load(saved['ckpt'])['state_dict']
        assert list(teacher.model.state_dict()) == list(weights)
        assert all(torch.equal(v, weights[k]) for k, v in teacher.model.state_dict().items())

    def test_a_teacher_without_a_checkpoint_is_refused(self, saved):
        with pytest.raises(ValueError, match='no checkpoint.*only teaches noise'):
            FrozenTeacher(saved['cfg'])

    def test_a_checkpoint_that_is_not_there_is_named(self, saved):
        with pytest.raises(FileNotFoundError, match='no_such_file.pth'):
            FrozenTeacher(saved['cfg'], 'no_such_file.pth')

    def test_a_checkpoint_of_another_model_is_refused(self, saved):
        with pytest.raises(ValueError) as error:
            FrozenTeacher(tiny_faster_rcnn(12, 24), saved['ckpt'])
        message = str(error.value)
        assert saved['ckpt'] in message and 'FasterRCNN' in message
        assert 'missing keys (' in message and 'rpn_head.rpn_conv.weight' in message
        assert 'unexpected keys (bbox_head.cls_convs.0.conv.weight' in message

    def test_a_checkpoint_for_other_classes_is_refused(self, saved):
        cfg = deepcopy(saved['cfg'])
        cfg['bbox_head']['num_classes'] = NUM_CLASSES + 2
        with pytest.raises(ValueError, match='retina_cls.*other classes.*num_classes'):
            FrozenTeacher(cfg, saved['ckpt'])

    def test_a_pickle_is_loaded_only_on_request(self, saved):
        checkpoint = torch.load(saved['ckpt'])
        torch.save(dict(checkpoint, extra=FrozenTeacher), saved['ckpt'])
        with pytest.raises(ValueError, match='allow_pickle=True'):
            FrozenTeacher(**saved)
        assert FrozenTeacher(**saved, allow_pickle=True).model.training is False

    def test_weights_under_names_that_the_library_itself_converts(self, tmp_path):
        """mmpretrain renames keys of its older Swin checkpoints while it loads them."""
        arch = dict(embed_dims=24, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4])
        cfg = tiny_classifier()
        cfg['backbone'] = dict(type='SwinTransformer', arch=arch, img_size=64, window_size=2)
        cfg['head']['in_channels'] = 192
        weights = build_model(cfg).state_dict()
        old = {k.replace('backbone.norm3', 'backbone.norm'): v for k, v in weights.items()}
        assert set(old) != set(weights)
        torch.save(dict(state_dict=old), tmp_path / 'old.pth')
        teacher = FrozenTeacher(cfg, str(tmp_path / 'old.pth'))
        assert torch.equal(teacher.model.backbone.norm3.weight, weights['backbone.norm3.weight'])

    @pytest.mark.parametrize(
        'meta, classes',
        [
            (dict(dataset_meta=dict(classes=('a', 'b'))), ('a', 'b')),
            (dict(dataset_meta=dict(CLASSES=['a', 'b'])), ('a', 'b')),
            (dict(CLASSES=('a', 'b')), ('a', 'b')),
            (dict(dataset_meta=None), None),
            (None, None),
        ],
    )
    def test_class_names_come_from_the_checkpoint(self, saved, meta, classes):
        checkpoint = torch.load(saved['ckpt'])
        torch.save(dict(checkpoint, meta=meta), saved['ckpt'])
        assert FrozenTeacher(**saved).classes == classes


class TestLoadModelConfig:
    def test_the_model_part_alone(self):
        cfg = dict(type='RetinaNet', neck=None)
        assert load_model_config(cfg) == cfg
        assert load_model_config(Config(dict(model=cfg))) == cfg

    def test_the_scope_of_the_whole_config(self):
        cfg = Config(dict(model=dict(type='RetinaNet'), default_scope='mmdet'))
        assert load_model_config(cfg) == dict(type='RetinaNet', _scope_='mmdet')
        assert cfg.model == dict(type='RetinaNet')
        other = Config(dict(model=dict(type='mmyolo.RetinaNet', _scope_='mmyolo'), default_scope='mmdet'))
        assert load_model_config(other)['_scope_'] == 'mmyolo'

    def test_a_file(self, tmp_path):
        (tmp_path / 'base.py').write_text("default_scope = 'mmdet'\nmodel = dict(type='RetinaNet', neck=1)\n")
        (tmp_path / 'cfg.py').write_text("_base_ = 'base.py'\nmodel = dict(neck=2)\n")
        found = load_model_config(str(tmp_path / 'cfg.py'))
        assert found == dict(type='RetinaNet', neck=2, _scope_='mmdet')

    @pytest.mark.parametrize(
        'name', ['mmdet::retinanet/retinanet_r18_fpn_1x_coco.py', 'mmpretrain::resnet/resnet18_8xb32_in1k.py']
    )
    def test_a_config_of_a_library(self, name):
        found, whole = load_model_config(name), get_config(name)
        assert found['_scope_'] == name.split('::')[0]
        assert found['backbone'] == whole.model.backbone

    def test_the_preprocessor_that_stands_beside_the_model(self):
        """mmpretrain's configs have it there, where a runner picks it up. Without it nothing would be normalised."""
        found = load_model_config('mmpretrain::resnet/resnet18_8xb32_in1k.py')
        assert found['data_preprocessor']['mean'] == IMAGENET['mean']
        cfg = Config(dict(model=dict(type='A', data_preprocessor=dict(mean=1)), data_preprocessor=dict(mean=2)))
        assert load_model_config(cfg)['data_preprocessor'] == dict(mean=1)

    @pytest.mark.parametrize('cfg', [dict(backbone=1, neck=2), Config(dict(model=dict(backbone=1), a=2))])
    def test_a_config_without_a_model_is_refused(self, cfg):
        with pytest.raises(ValueError, match='needs a `type`'):
            load_model_config(cfg)


class TestFrozen:
    def test_no_parameter_asks_for_a_gradient(self, saved):
        assert not any(p.requires_grad for p in FrozenTeacher(**saved).model.parameters())

    @pytest.mark.parametrize('mode', [True, False])
    def test_it_stays_in_evaluation_mode(self, saved, mode):
        distiller = build_distiller(tiny_retinanet(), saved, [])
        distiller.train(mode)
        assert distiller.student.training is mode
        assert not any(module.training for module in distiller.teacher.model.modules())

    def test_drop_path_and_dropout_are_off_in_training(self, tmp_path):
        cfg = tiny_classifier()
        arch = dict(depths=[2, 2, 2, 2], channels=[8, 8, 8, 16])
        cfg['backbone'] = dict(type='ConvNeXt', arch=arch, drop_path_rate=0.9, gap_before_final_norm=False)
        cfg['neck'], cfg['head']['in_channels'] = dict(type='GlobalAveragePooling'), 16
        saved = save_random_teacher(cfg, tmp_path)
        distiller = build_distiller(tiny_classifier(), saved, []).train()
        inputs = torch.rand(2, 3, 32, 32)
        first, second = (distiller.teacher.extract(inputs)[-1] for _ in range(2))
        assert torch.equal(first, second)
        distiller.teacher.model.train()  # what would happen otherwise
        assert not torch.equal(distiller.teacher.extract(inputs)[-1], first)

    def test_statistics_of_the_batch_are_used_and_kept_only_if_asked_for(self, saved):
        teacher, plain = FrozenTeacher(**saved), build_model(saved['cfg'], seed=5).train()
        inputs = torch.rand(2, 3, 64, 64)
        still, before = teacher.extract(inputs), teacher.fingerprint()
        statistics = TeacherStatistics(teacher)
        with torch.no_grad():
            expected = plain.extract_feat(inputs)
        for a, b, c in zip(teacher.extract(inputs, statistics), expected, still):
            assert torch.equal(a, b) and not torch.equal(a, c)
        drifted = {**teacher.model.state_dict(), **statistics.named_state()}
        assert all(torch.equal(v, drifted[k]) for k, v in plain.state_dict().items())
        assert any(not torch.equal(v, teacher.model.state_dict()[k]) for k, v in drifted.items())
        assert teacher.fingerprint() == before and not any(m.training for m in teacher.model.modules())
        assert all(torch.equal(a, b) for a, b in zip(teacher.extract(inputs), still)), 'the next call sees the teacher'

    def test_features_and_outputs_are_detached(self, saved):
        teacher = FrozenTeacher(**saved)
        feats = teacher.extract(torch.rand(1, 3, 64, 64, requires_grad=True))
        assert not any(f.requires_grad for f in feats)
        asking = [f.clone().requires_grad_() for f in feats]
        assert not any(level.requires_grad for part in teacher.outputs(asking) for level in part)

    def test_outputs_are_those_of_its_head(self, saved):
        teacher = FrozenTeacher(**saved)
        inputs = torch.rand(1, 3, 64, 64)
        plain = build_model(saved['cfg'], seed=5).eval()
        expected = plain.bbox_head(plain.extract_feat(inputs))
        for found, part in zip(teacher.outputs(teacher.extract(inputs)), expected):
            assert all(torch.equal(a, b) for a, b in zip(found, part))

    def test_copies_of_a_distiller_share_it(self, saved):
        distiller = build_distiller(tiny_retinanet(), saved, [dict(type='mmrkd.ERA')])
        copied = deepcopy(distiller)
        assert copied.teacher is distiller.teacher
        assert copied.methods[0].teacher_head.teacher is distiller.teacher
        assert copied.student is not distiller.student


class TestFingerprint:
    def test_equal_weights_have_equal_fingerprints(self, saved):
        first, second = FrozenTeacher(**saved), FrozenTeacher(**saved)
        assert first.fingerprint() == second.fingerprint() == first.fingerprint()
        assert len(first.fingerprint()) == 64

    @pytest.mark.parametrize('name', ['backbone.conv1.weight', 'bbox_head.retina_cls.bias', 'backbone.bn1.running_var'])
    def test_the_last_bit_counts(self, saved, name):
        teacher = FrozenTeacher(**saved)
        before = teacher.fingerprint()
        value = teacher.model.state_dict()[name].view(-1)
        kept = value[0].item()
        value[0] = torch.nextafter(value[0], torch.tensor(100.0))
        assert teacher.fingerprint() != before
        value[0] = kept
        assert teacher.fingerprint() == before

    def test_counters_count(self, saved):
        teacher = FrozenTeacher(**saved)
        before = teacher.fingerprint()
        teacher.model.backbone.bn1.num_batches_tracked += 1
        assert teacher.fingerprint() != before

    @pytest.mark.parametrize(
        'student, teacher, batch',
        [
            (tiny_retinanet(), tiny_retinanet(12, 24), detection_batch),
            (tiny_faster_rcnn(), tiny_faster_rcnn(12, 24), detection_batch),
            (tiny_classifier(), tiny_classifier(12), classification_batch),
        ],
        ids=['retinanet', 'faster rcnn', 'classifier'],
    )
    def test_training_leaves_no_trace(self, tmp_path, student, teacher, batch):
        distiller = build_distiller(student, save_random_teacher(teacher, tmp_path), [dict(type='mmrkd.ERA')]).train()
        before = distiller.teacher.fingerprint()
        optimizer = torch.optim.SGD(distiller.parameters(), 0.01, momentum=0.9, weight_decay=0.1)
        for seed in range(2):
            inputs, samples = model_inputs(distiller, batch(seed=seed))
            distiller.parse_losses(distiller(inputs, samples, mode='loss'))[0].backward()
            optimizer.step()
            optimizer.zero_grad()
        assert distiller.teacher.fingerprint() == before
        assert all(p.grad is None for p in distiller.teacher.model.parameters())


class TestOwnInput:
    """In a distillation the teacher has the features that it would have on its own."""

    def compare(self, student, teacher, saved, batch):
        distiller = build_distiller(student, saved, [Watch()]).train()
        inputs, samples = model_inputs(distiller, batch)
        before = inputs.clone()
        distiller(inputs, samples, mode='loss')
        assert torch.equal(inputs, before)
        seen, view = distiller.methods[0].views
        own, _ = model_inputs(teacher, batch, training=False)
        with torch.no_grad():
            expected = distiller.teacher.adapter.features(teacher.extract_feat(own))
        features = distiller.teacher.adapter.features(view.all_feats)
        assert len(features) == len(expected)
        for matched, found, feature, other in zip(view.feats, features, expected, seen.feats):
            assert matched is found  # every level is matched here
            assert matched.shape[2:] == other.shape[2:]
            cut = feature[..., : other.shape[-2], : other.shape[-1]] if feature.dim() == 4 else feature
            assert (matched - cut).abs().max() <= 1e-4 * max(1.0, feature.abs().max().item())
        assert seen.inputs is inputs
        return view, inputs

    def detection(self, tmp_path, student, teacher, batch):
        configs = tiny_retinanet(), tiny_retinanet(12, 24)
        for cfg, preprocessor in zip(configs, (student, teacher)):
            cfg['data_preprocessor'] = dict(dict(type='DetDataPreprocessor', pad_size_divisor=32), **preprocessor)
        saved = save_random_teacher(configs[1], tmp_path, seed=3)
        return self.compare(configs[0], build_model(configs[1], seed=3).eval(), saved, batch)

    def test_caffe_style_teacher(self, tmp_path):
        view, inputs = self.detection(tmp_path, IMAGENET, CAFFE, detection_batch())
        assert view.inputs.abs().max() > 50 > inputs.abs().max()

    def test_caffe_style_student(self, tmp_path):
        self.detection(tmp_path, CAFFE, IMAGENET, detection_batch())

    @pytest.mark.parametrize('teacher', [IMAGENET, CAFFE], ids=['same pixels', 'caffe'])
    def test_wider_padding(self, tmp_path, teacher):
        view, inputs = self.detection(tmp_path, IMAGENET, dict(teacher, pad_size_divisor=64), detection_batch())
        assert inputs.shape[-1] == 96 and view.inputs.shape[-1] == 128
        assert [f.shape[-1] for f in view.feats] == [12, 6, 3]
        assert [f.shape[-1] for f in view.all_feats] == [12, 6, 3]

    @pytest.mark.parametrize('pad_value', [0, 5])
    def test_images_of_unequal_size(self, tmp_path, pad_value):
        batch = detection_batch()
        batch['inputs'][1] = batch['inputs'][1][:, :70, :50].contiguous()
        batch['data_samples'][1].set_metainfo(dict(img_shape=(70, 50), ori_shape=(70, 50)))
        view, inputs = self.detection(tmp_path, IMAGENET, dict(CAFFE, pad_value=pad_value), batch)
        assert (view.inputs[1, :, 70:] == pad_value).all()
        assert (view.inputs[1, :, :, 50:] == pad_value).all()

    def test_equal_preprocessors_share_the_tensor(self, tmp_path):
        view, inputs = self.detection(tmp_path, IMAGENET, IMAGENET, detection_batch())
        assert view.inputs is inputs

    def test_classifier(self, tmp_path):
        student, teacher = tiny_classifier(), tiny_classifier(12)
        student['data_preprocessor'].update(mean=IMAGENET['mean'], std=IMAGENET['std'], to_rgb=True)
        teacher['data_preprocessor'].update(mean=CAFFE['mean'], std=CAFFE['std'], to_rgb=False)
        saved = save_random_teacher(teacher, tmp_path, seed=3)
        self.compare(student, build_model(teacher, seed=3).eval(), saved, classification_batch())


def test_it_is_nobodys_submodule(saved):
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.teacher = FrozenTeacher(**saved)

    holder = Holder()
    assert not list(holder.parameters()) and not holder.state_dict() and len(list(holder.modules())) == 1


class TestWhatALossMayWrite:
    """The fingerprint covers all of it."""

    def test_numbers_in_python_attributes_are_part_of_it(self, saved):
        teacher = FrozenTeacher(**saved)
        before, weights = teacher.fingerprint(), teacher.fingerprint(weights_only=True)
        head = teacher.model.bbox_head
        for write in (
            lambda: setattr(head, 'seen', 3),
            lambda: setattr(head, 'counts', [1.0, torch.ones(2)]),
            lambda: head.counts.append(2),
            lambda: head.counts[1].add_(1),
            lambda: setattr(head.assigner, 'pos_iou_thr', 0.123),
        ):
            write()
            assert teacher.fingerprint() != before
            before = teacher.fingerprint()
        assert teacher.fingerprint(weights_only=True) == weights
        head.prior_generator.strides[0] = (1, 1)
        assert teacher.fingerprint() != before

    def test_it_is_the_same_for_a_model_that_is_built_again_and_used(self, saved):
        first, second = FrozenTeacher(**saved), FrozenTeacher(**saved)
        second.outputs(second.extract(torch.rand(1, 3, 64, 64)))
        assert first.fingerprint() == second.fingerprint()
