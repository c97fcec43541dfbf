"""Pictures of a run: curves, and detections side by side."""

from mmrkd.visualization.curves import plot_curves, read_curve, read_losses
from mmrkd.visualization.detections import compare_detections, detect, draw_boxes, draw_differences
from mmrkd.visualization.differences import Differences, Found, compare_found, summary
from mmrkd.visualization.feature_maps import draw_feature_maps, energy

__all__ = [
    'Differences',
    'Found',
    'compare_detections',
    'compare_found',
    'detect',
    'draw_boxes',
    'draw_differences',
    'draw_feature_maps',
    'energy',
    'plot_curves',
    'read_curve',
    'read_losses',
    'summary',
]
