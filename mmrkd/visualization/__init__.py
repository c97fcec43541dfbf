"""Pictures of a run: curves, and detections side by side."""

from mmrkd.visualization.curves import plot_curves, read_curve
from mmrkd.visualization.detections import compare_detections

__all__ = ['compare_detections', 'plot_curves', 'read_curve']
