import pytest
import torch
from mmengine.model import BaseModel
from torch import nn

from mmrkd.adapters import build_adapter
from mmrkd.adapters.base import _stride
from mmrkd.adapters.classification import ClassificationAdapter
from mmrkd.adapters.detection import DetectionAdapter
from mmrkd.structures import Level
from mmrkd.testing import (
    build_model,
    detection_batch,
    model_inputs,
    tiny_classifier,
    tiny_faster_rcnn,
    tiny_retinanet,
)


class TestBuildAdapter:
    def test_the_library_decides(self):
        assert type(build_adapter(build_model(tiny_retinanet()))) is DetectionAdapter
        assert type(build_adapter(build_model(tiny_classifier()))) is ClassificationAdapter

    def test_a_class_of_the_user_is_known_by_the_class_above_it(self):
        from mmdet.models import RetinaNet

        class MyDetector(RetinaNet):
            pass

        model = build_model(tiny_retinanet())
        model.__class__ = MyDetector
        assert MyDetector.__module__.split('.')[0] != 'mmdet'
        adapter = build_adapter(model)
        assert type(adapter) is DetectionAdapter and adapter.model is model

    @pytest.mark.parametrize('model', [nn.Linear(1, 1), type('Mine', (BaseModel,), {'forward': None})()])
    def test_other_models_are_refused_by_name(self, model):
        with pytest.raises(TypeError) as error:
            build_adapter(model)
        message = str(error.value)
        assert type(model).__name__ in message and type(model).__module__ in message
        assert 'mmdet or mmpretrain' in message


class TestDryRun:
    @pytest.mark.parametrize(
        'cfg, expected',
        [
            (tiny_retinanet(8, 16), [(16, 8), (16, 16), (16, 32)]),
            (tiny_retinanet(8, 24, strides=(4, 8, 16, 32, 64)), [(24, s) for s in (4, 8, 16, 32, 64)]),
            (tiny_retinanet(8, 16, strides=(8, 16, 32, 64, 128)), [(16, s) for s in (8, 16, 32, 64, 128)]),
            (tiny_faster_rcnn(8, 16), [(16, s) for s in (4, 8, 16, 32, 64)]),
            (tiny_classifier(8), [(64, None)]),
        ],
        ids=['retinanet', 'retinanet from 4', 'retinanet to 128', 'faster rcnn', 'classifier'],
    )
    def test_channels_and_strides(self, cfg, expected):
        adapter = build_adapter(build_model(cfg))
        assert [(level.channels, level.stride) for level in adapter.levels(adapter.dry_run()[0])] == expected

    def test_the_first_size_that_the_model_runs_on_is_taken(self):
        cfg = tiny_classifier()
        arch = dict(embed_dims=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])
        cfg['backbone'] = dict(type='SwinTransformer', arch=arch, img_size=224, window_size=7)  # wants 7 cells at least
        cfg['head']['in_channels'] = 128
        adapter = build_adapter(build_model(cfg))
        assert adapter.levels(adapter.dry_run()[0]) == (Level(128, None),)
        assert adapter.dry_size == 224

    def test_a_model_that_runs_on_no_size_is_refused_with_its_errors(self):
        adapter = build_adapter(build_model(tiny_classifier()))
        adapter.dry_sizes = (0, -1)
        with pytest.raises(ValueError, match='ImageClassifier runs on blank images of none.*0: RuntimeError'):
            adapter.dry_run()

    def test_a_grey_model_gets_a_grey_image(self):
        cfg = tiny_classifier()
        cfg['data_preprocessor'].update(mean=[10.0], std=[1.0], to_rgb=False)
        cfg['backbone']['in_channels'] = 1
        adapter = build_adapter(build_model(cfg))
        assert adapter.dry_run()[0][-1].shape == (2, 64)

    def test_features_are_assembled_as_the_model_gives_them(self):
        adapter = build_adapter(build_model(tiny_retinanet()))
        new = {i: torch.zeros(1, 16, 4 // 2**i, 4 // 2**i) for i in range(3)}
        assembled = adapter.assemble(new)
        assert isinstance(assembled, tuple) and all(f is new[i] for i, f in enumerate(assembled))

    def test_it_changes_nothing(self):
        model = build_model(tiny_retinanet())
        model.train()
        model.neck.eval()
        modes = [module.training for module in model.modules()]
        state = {k: v.clone() for k, v in model.state_dict().items()}
        feats, layout = build_adapter(model).dry_run()
        assert [module.training for module in model.modules()] == modes
        assert len(set(modes)) == 2
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
        assert not any(f.requires_grad for f in feats)
        assert layout == build_adapter(model).layout(feats)

    def test_the_mode_is_restored_after_an_error(self):
        model = build_model(tiny_retinanet())
        model.train()
        adapter = build_adapter(model)
        model.neck.forward = None
        with pytest.raises(TypeError):
            adapter.dry_run()
        assert all(module.training for module in model.modules())

    @pytest.mark.parametrize(
        'size, cells, stride', [(128, 16, 8), (128, 1, 128), (300, 19, 16), (300, 10, 30), (300, 38, 8), (127, 16, 8)]
    )
    def test_stride_of_a_feature_map(self, size, cells, stride):
        assert _stride(size, cells) == stride


class TestSamples:
    def test_a_loss_may_write_into_its_samples(self):
        """RTMDet-Ins exchanges the masks of the ground truth; the next loss needs those that there were."""
        adapter = build_adapter(build_model(tiny_retinanet()))
        inputs, samples = model_inputs(adapter.model, detection_batch())
        seen = []

        def loss(_inputs, own):
            seen.extend(own)
            for sample in own:
                sample.gt_instances.labels = sample.gt_instances.labels + 1
                sample.extra = 1
            return {'loss': torch.zeros(())}

        adapter.model.loss = loss
        labels = [sample.gt_instances.labels for sample in samples]
        adapter.task_loss((), inputs, samples)
        assert all(s.gt_instances.labels is before for s, before in zip(samples, labels))
        assert not any('extra' in sample for sample in samples)
        assert all(torch.equal(s.gt_instances.labels, before + 1) for s, before in zip(seen, labels))
        assert all(a.gt_instances.bboxes is b.gt_instances.bboxes for a, b in zip(seen, samples))
        assert all(a.metainfo == b.metainfo and type(a) is type(b) for a, b in zip(seen, samples))


class TestTapped:
    def test_a_dry_run_gives_the_outputs_asked_for_and_changes_nothing(self):
        model = build_model(tiny_retinanet())
        model.train()
        before = {key: value.clone() for key, value in model.state_dict().items()}
        taps = build_adapter(model).dry_run_taps(['backbone.layer3', 'neck'])
        assert {'backbone.layer3', 'neck'} == set(taps)
        assert taps['backbone.layer3'].shape == (1, 32, 8, 8) and [f.shape[-1] for f in taps['neck']] == [16, 8, 4]
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
        assert model.training

    def test_where_no_name_is_near_the_parts_are_named(self):
        with pytest.raises(KeyError, match=r"'xyz'.*\['data_preprocessor', 'backbone', 'neck', 'bbox_head'\]"):
            build_adapter(build_model(tiny_retinanet())).tapped(['xyz'])
