"""An adapter is found by the most specific class that one serves, also one from outside the package."""

import sys
import types

import pytest
import torch
from mmdet.models.detectors.base import BaseDetector
from mmengine.model import BaseModel
from torch import nn

from mmrkd.adapters import ModelAdapter, build_adapter, find_adapter
from mmrkd.adapters.classification import ClassificationAdapter
from mmrkd.adapters.detection import DetectionAdapter
from mmrkd.adapters.retrieval import RetrievalAdapter
from mmrkd.adapters.whole_classification import WholeClassificationAdapter
from mmrkd.registry import ADAPTERS
from mmrkd.testing import build_model, tiny_classifier, tiny_retinanet


@pytest.fixture(autouse=True)
def adapters_as_they_were():
    ADAPTERS.import_from_location()
    before = dict(ADAPTERS.module_dict)
    yield
    ADAPTERS.module_dict.clear()
    ADAPTERS.module_dict.update(before)


class Segmentor(BaseModel):
    """A model of another library: a backbone, a head that calls its own forward past the hooks."""

    def __init__(self):
        super().__init__()
        self.backbone, self.decode_head = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 2, 1)

    def extract_feat(self, inputs):
        return (self.backbone(inputs),)

    def loss(self, inputs, samples):
        return {'loss': self.decode_head.forward(self.extract_feat(inputs)[0]).mean()}

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.loss(inputs, data_samples)


def outside_adapter(served):
    """What somebody writes in a file of their own."""

    @ADAPTERS.register_module()
    class SegmentationAdapter(ModelAdapter):
        serves = served
        task, main_metric = 'segmentation', 'mIoU'
        sigmoid, num_classes = False, 2
        head = property(lambda self: self.model.decode_head)

        def head_outputs(self, feats):
            return self.head(feats[0])

        def logits(self, outputs):
            return [outputs.permute(0, 2, 3, 1).reshape(-1, 2)]

        def layout(self, feats):
            return {'classes': 2}

        def blend(self, outputs, other, alpha, samples):
            raise NotImplementedError

    return SegmentationAdapter


@pytest.mark.parametrize('served', [Segmentor, f'{__name__}.Segmentor', (nn.Linear, Segmentor)], ids=str)
def test_a_model_of_another_library_is_one_adapter(served):
    model = Segmentor()
    with pytest.raises(TypeError, match='no adapter for .*Segmentor: expected a model of mmdet or mmpretrain'):
        build_adapter(model)
    kind = outside_adapter(served)
    adapter = build_adapter(model)
    assert type(adapter) is kind and adapter.model is model
    feats, layout = adapter.dry_run()
    assert layout == {'classes': 2} and [str(level) for level in adapter.levels(feats)] == ['stride 2, 4ch']
    inputs = torch.rand(1, 3, 8, 8)
    losses, outputs = adapter.task_loss(adapter.extract(inputs), inputs, [])
    assert outputs.shape == (1, 2, 4, 4) and losses['loss'] == outputs.mean()


def test_the_name_under_which_a_library_exports_a_class_will_do():
    kind = outside_adapter('mmdet.models.RetinaNet')
    assert type(build_adapter(build_model(tiny_retinanet()))) is kind


def test_the_most_specific_class_wins():
    from mmdet.models import RetinaNet, SingleStageDetector

    assert find_adapter(RetinaNet) is DetectionAdapter
    kind = outside_adapter(SingleStageDetector)
    assert find_adapter(RetinaNet) is kind and find_adapter(BaseDetector) is DetectionAdapter


def test_of_two_for_the_same_class_the_derived_one_wins():
    @ADAPTERS.register_module()
    class MyDetectionAdapter(DetectionAdapter):
        pass

    assert type(build_adapter(build_model(tiny_retinanet()))) is MyDetectionAdapter


def test_two_for_the_same_class_that_are_strangers_are_an_error():
    outside_adapter('mmdet.models.detectors.base.BaseDetector')
    with pytest.raises(TypeError, match=r"2 adapters serve mmdet.*'DetectionAdapter', 'SegmentationAdapter'"):
        build_adapter(build_model(tiny_retinanet()))


def test_each_library_has_its_own():
    from mmpretrain.models import HuggingFaceClassifier, ImageToImageRetriever, TimmClassifier

    assert type(build_adapter(build_model(tiny_classifier()))) is ClassificationAdapter
    assert find_adapter(TimmClassifier) is find_adapter(HuggingFaceClassifier) is WholeClassificationAdapter
    assert find_adapter(ImageToImageRetriever) is RetrievalAdapter


class TestModelsWithoutImages:
    def test_trackers_and_embedders_have_none(self):
        from mmdet.models.mot import ByteTrack
        from mmdet.models.reid import BaseReID

        with pytest.raises(TypeError, match='no adapter for mmdet.*ByteTrack: expected'):
            find_adapter(ByteTrack)
        with pytest.raises(TypeError, match='no adapter for .*BaseReID .*Adapter refuses.*classifies nothing'):
            find_adapter(BaseReID)

    def test_a_detector_of_points_has_none(self, monkeypatch):
        """mmdet3d's base derives from mmdet's."""
        base = type('Base3DDetector', (BaseDetector,), {'__module__': 'mmdet3d.models.detectors.base'})
        module = types.ModuleType('mmdet3d.models.detectors.base')
        module.Base3DDetector = base
        monkeypatch.setitem(sys.modules, module.__name__, module)
        with pytest.raises(TypeError, match='no adapter for .*VoxelNet .*refuses mmdet3d.*points or voxels'):
            find_adapter(type('VoxelNet', (base,), {}))

    @pytest.mark.parametrize(
        'error', [IndexError('too many indices'), KeyError('voxels'), AttributeError('x'), TypeError]
    )
    def test_one_that_nobody_knows_says_so_on_its_dry_run(self, error):
        class Voxels(Segmentor, BaseDetector):
            def extract_feat(self, inputs):
                raise error

            _forward = predict = None

        adapter = build_adapter(Voxels())
        with pytest.raises(TypeError, match=r'no adapter for Voxels: DetectionAdapter expects .*images \(N, 3, H, W\)'):
            adapter.dry_run()
