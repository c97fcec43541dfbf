"""Gain with its spread, gain against what the training costs, gain against what the prediction costs."""

import statistics
from typing import Any


def plotted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows that have a gain to show."""
    return [row for row in rows if row['gains'] and row['row'] != 'alone']


def plot_pair(rows: list[dict[str, Any]], title: str, path: str) -> None:
    """Draws three panels of one pair into an SVG; nothing without rows.

    Args:
        rows: See :func:`benchmarks.report.rows_of`.
        title: Of the picture.
        path: File to write.
    """
    rows = plotted(rows)
    if not rows:
        return
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout='constrained')
    FigureCanvasSVG(figure)
    bars, training, prediction = figure.subplots(1, 3, width_ratios=(1.4, 1, 1))
    means = [statistics.mean(row['gains']) for row in rows]
    colours = ['tab:red' if row['ours'] else 'tab:grey' for row in rows]
    places = range(len(rows))
    bars.barh(places, means, color=colours, alpha=0.6)
    for place, row in zip(places, rows):
        bars.plot(row['gains'], [place] * len(row['gains']), 'k.', markersize=4)
    bars.set_yticks(places, [row['title'] for row in rows], fontsize=7)
    bars.invert_yaxis()
    bars.set_xlabel('gain on test; points are seeds')
    panels = (training, 'time', 'training step / plain step', 1), (prediction, 'cost', 'FLOPs of one image (G)', 1e9)
    for axes, key, label, unit in panels:
        for row, mean, colour in zip(rows, means, colours):
            if key == 'time' and (row['variant'] != 'student' or row['time'] is None):
                continue
            value = row['time'] if key == 'time' else row['cost']['flops'] / unit
            axes.plot(value, mean, 'o', color=colour)
            axes.annotate(row['row'] if row['variant'] == 'student' else row['variant'], (value, mean), fontsize=6)
        axes.set_xlabel(label)
        axes.set_ylabel('gain on test')
    for axes in (bars, training, prediction):
        axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, metadata={'Date': None})
