import pytest
from mmengine.config import Config

from mmrkd.adapters.classification import ClassificationAdapter
from mmrkd.adapters.detection import DetectionAdapter
from mmrkd.engine.metrics import found_metric, main_metric
from mmrkd.testing import build_model, tiny_classifier, tiny_retinanet


def run_cfg(save_best='missing', variants=None):
    checkpoint = {} if save_best == 'missing' else dict(save_best=save_best)
    return Config(
        dict(default_hooks=dict(checkpoint=checkpoint), val_cfg=dict(variants=variants) if variants else None)
    )


@pytest.fixture(scope='module')
def detector():
    return DetectionAdapter(build_model(tiny_retinanet()))


@pytest.mark.parametrize(
    'cfg, expected',
    [
        (run_cfg('coco/segm_mAP'), 'coco/segm_mAP'),
        (run_cfg(['pascal_voc/mAP', 'coco/bbox_mAP']), 'pascal_voc/mAP'),
        (run_cfg('auto'), 'coco/bbox_mAP'),
        (run_cfg(None), 'coco/bbox_mAP'),
        (run_cfg(), 'coco/bbox_mAP'),
        (Config({}), 'coco/bbox_mAP'),
        (Config(dict(default_hooks=dict(checkpoint=None))), 'coco/bbox_mAP'),
        (run_cfg('integrated/coco/segm_mAP', ('student', 'integrated')), 'coco/segm_mAP'),
        (run_cfg('coco/segm_mAP', ('student', 'integrated')), 'coco/segm_mAP'),
    ],
)
def test_what_the_best_checkpoint_is_chosen_by_goes_before_that_of_the_task(detector, cfg, expected):
    assert main_metric(cfg, detector) == expected


def test_of_a_classifier():
    assert main_metric(Config({}), ClassificationAdapter(build_model(tiny_classifier()))) == 'accuracy/top1'


def test_without_a_name_and_without_a_model_it_asks():
    assert main_metric(run_cfg('coco/segm_mAP')) == 'coco/segm_mAP'
    with pytest.raises(ValueError, match='save_best'):
        main_metric(run_cfg('auto'))


def test_an_evaluation_without_it_is_summed_up_by_its_first_metric(detector):
    scores = {'coco_panoptic/PQ': 1.0, 'coco_panoptic/SQ': 2.0}
    assert found_metric(Config({}), detector, scores) == 'coco_panoptic/PQ'
    assert found_metric(Config({}), detector, {**scores, 'coco/bbox_mAP': 3.0}) == 'coco/bbox_mAP'
