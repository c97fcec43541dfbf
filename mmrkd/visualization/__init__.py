"""Pictures of a run: curves, and detections side by side."""

from mmrkd.visualization.curves import plot_curves, read_curve, read_losses
from mmrkd.visualization.detections import compare_detections
from mmrkd.visualization.feature_maps import draw_feature_maps, energy

__all__ = ['compare_detections', 'draw_feature_maps', 'energy', 'plot_curves', 'read_curve', 'read_losses']
