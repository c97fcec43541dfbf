"""Validation curves of several runs in one picture."""

import glob
import json
import os.path as osp

Curve = list[tuple[int, float]]


def read_curve(work_dir: str, metric: str = 'coco/bbox_mAP') -> Curve:
    """Reads a metric from the logs that mmengine wrote into a work dir.

    Args:
        work_dir: Folder of one run. The log of a resumed run continues that of the one before.
        metric: Name of a validation metric, as of :func:`mmrkd.engine.metrics.main_metric`. Defaults to a detector's.

    Returns:
        ``(epoch, value)`` in order; a later log replaces the same epoch of an earlier one.

    Raises:
        ValueError: No log in the folder has the metric.
    """
    values: dict[int, float] = {}
    for path in sorted(glob.glob(osp.join(work_dir, '*', 'vis_data', 'scalars.json'))):
        with open(path) as lines:
            for record in map(json.loads, lines):
                if metric in record:
                    values[int(record['step'])] = float(record[metric])
    if not values:
        raise ValueError(f'no log below {work_dir!r} has the metric {metric!r}: did the run validate?')
    return sorted(values.items())


def read_losses(work_dir: str) -> dict[str, Curve]:
    """Reads every loss in the log of a run: name -> ``(iteration, value)``; empty without a log."""
    curves: dict[str, dict[int, float]] = {}
    for path in sorted(glob.glob(osp.join(glob.escape(work_dir), '*', 'vis_data', 'scalars.json'))):
        with open(path) as lines:
            for record in map(json.loads, lines):
                for name, value in record.items():
                    if 'loss' in name and 'iter' in record:
                        curves.setdefault(name, {})[int(record['iter'])] = float(value)
    return {name: sorted(values.items()) for name, values in curves.items()}


def plot_curves(curves: dict[str, Curve], path: str, ylabel: str = 'metric (val)', xlabel: str = 'epoch') -> None:
    """Draws one line for each run into a PNG.

    Args:
        curves: Name of the run -> curve.
        path: File to write.
        ylabel: What the values are.
        xlabel: What they are of.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=120, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, curve in curves.items():
        axes.plot(*zip(*curve), marker='o', markersize=3, label=f'{name}: {curve[-1][1]:.3f}')
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)
