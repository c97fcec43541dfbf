"""Which model families work: stock configs, one trial each, and the table of what came out."""

from mmrkd.support.families import CLASSIFIERS, DETECTORS, NOT_CLASSIFIERS, NOT_DETECTORS, RECIPES, stock_names
from mmrkd.support.segmentation import render_segmentors, try_segmentor
from mmrkd.support.segmentors import NOT_SEGMENTORS, SEGMENTORS, segmentor_names
from mmrkd.support.table import render
from mmrkd.support.trial import try_config

__all__ = [
    'CLASSIFIERS',
    'DETECTORS',
    'NOT_CLASSIFIERS',
    'NOT_DETECTORS',
    'NOT_SEGMENTORS',
    'RECIPES',
    'SEGMENTORS',
    'render',
    'render_segmentors',
    'segmentor_names',
    'stock_names',
    'try_config',
    'try_segmentor',
]
