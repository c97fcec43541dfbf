"""Makes the formulas of ``reference.py`` importable, and builds each teacher once."""

import pytest
from reference import opinionated_teacher

from mmrkd.testing import tiny_classifier, tiny_faster_rcnn, tiny_retinanet


@pytest.fixture(scope='session')
def wide_classifier(tmp_path_factory):
    """Teacher of a pooled feature with 128 channels; the tiny classifier has 64."""
    return opinionated_teacher(tiny_classifier(16), tmp_path_factory.mktemp('wide_classifier'), seed=11)


@pytest.fixture(scope='session')
def equal_classifier(tmp_path_factory):
    """Teacher of a pooled feature with 64 channels, as the tiny classifier."""
    return opinionated_teacher(tiny_classifier(8), tmp_path_factory.mktemp('equal_classifier'), seed=12)


@pytest.fixture(scope='session')
def wide_retinanet(tmp_path_factory):
    """Teacher with 24 channels on strides 8, 16, 32; the tiny RetinaNet has 16."""
    return opinionated_teacher(tiny_retinanet(16, 24), tmp_path_factory.mktemp('wide_retinanet'), seed=13)


@pytest.fixture(scope='session')
def deep_retinanet(tmp_path_factory):
    """Teacher with one level more, of stride 64."""
    cfg = tiny_retinanet(16, 24, strides=(8, 16, 32, 64))
    return opinionated_teacher(cfg, tmp_path_factory.mktemp('deep_retinanet'), seed=14)


@pytest.fixture(scope='session')
def padding_retinanet(tmp_path_factory):
    """Teacher that pads its images to multiples of 64 pixels; the tiny RetinaNet pads to multiples of 32."""
    cfg = tiny_retinanet(16, 24)
    cfg['data_preprocessor']['pad_size_divisor'] = 64
    return opinionated_teacher(cfg, tmp_path_factory.mktemp('padding_retinanet'), seed=16)


@pytest.fixture(scope='session')
def wide_faster_rcnn(tmp_path_factory):
    """Two-stage teacher with 24 channels. Its samplers take everything, so that its losses do not depend on luck."""
    cfg = tiny_faster_rcnn(16, 24)
    cfg['train_cfg']['rpn']['sampler']['num'] = 100000
    cfg['train_cfg']['rcnn']['sampler']['num'] = 100000
    return opinionated_teacher(cfg, tmp_path_factory.mktemp('wide_faster_rcnn'), seed=15)
