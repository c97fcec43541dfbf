"""Which detectors have scores of regions, and what is kept of them."""

from copy import deepcopy

import pytest
import torch

from mmrkd.adapters import build_adapter
from mmrkd.adapters.assigned import TargetCapture
from mmrkd.adapters.regions import kept_regions, region_logits, region_obstacle
from mmrkd.testing import build_model, detection_batch, model_inputs, tiny_classifier, tiny_faster_rcnn, tiny_retinanet


def two_stages(**roi):
    cfg = tiny_faster_rcnn()
    cfg['roi_head'].update(roi)
    return build_model(cfg, seed=2).train()


def test_scores_of_given_regions_are_those_of_extractor_and_head():
    model = two_stages()
    inputs, _ = model_inputs(model, detection_batch())
    feats = model.extract_feat(inputs)
    rois = torch.tensor([[0.0, 4.0, 4.0, 40.0, 44.0], [1.0, 10.0, 0.0, 60.0, 30.0]])
    roi = model.roi_head
    expected = roi.bbox_head(roi.bbox_roi_extractor(feats[: roi.bbox_roi_extractor.num_inputs], rois))[0]
    found = region_logits(model, feats, rois)
    assert found.shape == (2, 5) and torch.equal(found, expected)
    assert not torch.equal(found[0], found[1])


def test_what_is_kept_is_what_the_losses_saw():
    model = two_stages()
    inputs, samples = model_inputs(model, detection_batch())
    seen = {}

    def keep(module, args):
        seen.update(logits=args[0], labels=args[1])

    hook = model.roi_head.bbox_head.loss_cls.register_forward_pre_hook(keep)
    with kept_regions(model) as read:
        model.loss(inputs, deepcopy(samples))
    hook.remove()
    kept = read()
    assert kept.logits is seen['logits'] and torch.equal(kept.labels, seen['labels'])
    assert kept.logits.requires_grad and not kept.rois.requires_grad
    assert len(kept.rois) == len(kept.labels) and set(kept.rois[:, 0].tolist()) == {0.0, 1.0}
    assert '_bbox_forward' not in vars(model.roi_head), 'put back'


def test_only_who_asks_gets_them():
    adapter = build_adapter(two_stages())
    inputs, samples = model_inputs(adapter.model, detection_batch())
    feats = adapter.extract(inputs)
    for wanted in (False, True):
        capture = TargetCapture(wants_regions=wanted)
        adapter.task_loss(feats, inputs, samples, capture)
        assert (capture.regions is not None) == wanted


@pytest.mark.parametrize('cfg, name', [(tiny_retinanet(), 'RetinaNet'), (tiny_classifier(), 'ImageClassifier')])
def test_models_of_one_stage_have_none(cfg, name):
    adapter = build_adapter(build_model(cfg))
    assert adapter.region_obstacle == f'{name} has no second stage'


def test_heads_with_other_scores_have_none():
    independent = two_stages()
    independent.roi_head.bbox_head.loss_cls.use_sigmoid = True
    assert 'Shared2FCBBoxHead of StandardRoIHead has no softmax' in region_obstacle(independent)
    own_channels = two_stages()
    own_channels.roi_head.bbox_head.loss_cls.custom_cls_channels = True  # as Seesaw's
    assert 'has no softmax' in region_obstacle(own_channels)
    semantic = two_stages()
    type(semantic.roi_head).with_semantic = True  # as HTC's
    try:
        assert region_obstacle(semantic) == 'StandardRoIHead scores regions by more than their features'
    finally:
        del type(semantic.roi_head).with_semantic
    assert region_obstacle(two_stages()) is None
