"""Boxes of a dataset, and what can be wrong with them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from mmrkd.doctor.report import Report

TOLERANCE = 2.0  # pixels: tools round to whole ones, or draw a border around
MANY_OUTSIDE, MANY_WITHOUT_AREA = 0.05, 0.01
OUT_OF_REACH, SOME_OUT_OF_REACH, MOST_OUT_OF_REACH = 4, 0.1, 0.5


@dataclass
class Boxes:
    """All boxes of one dataset, in pixels of the images as they are stored.

    Attributes:
        where: What to call the dataset.
        xywh: ``(n, 4)``.
        sizes: Width and height of the image of each box ``(n, 2)``, NaN if the annotations do not tell.
        images: Name of the image of each box.
        area: What the annotations call the area of each object ``(n,)``, NaN if they do not.
    """

    where: str
    xywh: np.ndarray
    sizes: np.ndarray
    images: Sequence[Any]
    area: np.ndarray


def examine_boxes(boxes: Boxes, report: Report) -> Boxes:
    """Looks at boxes: finite, with an area, inside of their image. Returns those that are finite."""
    finite = np.isfinite(boxes.xywh).all(1)
    if not finite.all():
        report.fault('boxes-not-finite', f'{boxes.where}: {_share(~finite)} of the boxes, {_first(boxes, ~finite)}')
    x, y, width, height = boxes.xywh.T
    empty = finite & ((width < 1) | (height < 1) | (boxes.area <= 0))
    if empty.any():
        report.judge(
            'boxes-without-area',
            f'{boxes.where}: {_share(empty)} of the boxes are less than a pixel wide or high, or have an area of 0, '
            f'and are left out, {_first(boxes, empty)}',
            fault=empty.mean() >= MANY_WITHOUT_AREA,
        )
    usable = finite & ~empty & np.isfinite(boxes.sizes).all(1)
    if usable.any():
        _examine_readings(_where(boxes, usable), report)
    return _where(boxes, finite)


def _examine_readings(boxes: Boxes, report: Report) -> None:
    """Looks how many boxes reach outside, and whether another reading of the four numbers fits better."""
    outside = _outside(boxes.xywh, boxes.sizes)
    if _are_corners(boxes, outside):
        return report.fault(
            'boxes-format',
            f'{boxes.where}: the boxes are x1, y1, x2, y2. Read as x, y, width, height {_share(outside)} of them reach '
            'outside of their image',
        )
    if not outside.any():
        return None
    x, y, width, height = boxes.xywh.T
    readings = {
        'x, y, height, width': _outside(np.stack([x, y, height, width], 1), boxes.sizes),
        'x, y, width, height in images whose width and height are exchanged': _outside(
            boxes.xywh, boxes.sizes[:, ::-1]
        ),
        'the centre, width, height': _outside(np.stack([x - width / 2, y - height / 2, width, height], 1), boxes.sizes),
    }
    name, fitting = min(readings.items(), key=lambda item: item[1].mean())
    hint = f'; read as {name} it would be {_share(fitting)}' if fitting.mean() < outside.mean() / 5 else ''
    return report.judge(
        'boxes-outside',
        f'{boxes.where}: {_share(outside)} of the boxes reach outside of their image by more than '
        f'{TOLERANCE:.0f} pixels, {_first(boxes, outside)}{hint}',
        fault=outside.mean() >= MANY_OUTSIDE,
    )


def _are_corners(boxes: Boxes, outside: np.ndarray) -> bool:
    """Whether the boxes are x1, y1, x2, y2: as such nearly all fit, and as x, y, width, height they cannot be."""
    x, y, right, bottom = boxes.xywh.T
    corners = np.stack([x, y, right - x, bottom - y], 1)
    fit = (right > x) & (bottom > y) & ~_outside(corners, boxes.sizes)
    if fit.mean() < 0.99:
        return False
    as_corners = np.isclose(boxes.area, (right - x) * (bottom - y), rtol=0.02, atol=1)
    as_sides = np.isclose(boxes.area, right * bottom, rtol=0.02, atol=1)
    return outside.mean() >= MANY_OUTSIDE or (as_corners.mean() >= 0.95 and as_sides.mean() < 0.5)


def _outside(xywh: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    low = (xywh[:, :2] < -TOLERANCE).any(1)
    return low | (xywh[:, :2] + xywh[:, 2:] > sizes + TOLERANCE).any(1)


def examine_reach(boxes: Boxes, anchors: np.ndarray, scale: float, report: Report) -> None:
    """Compares the sizes of boxes with those of the anchors that are to find them.

    Args:
        boxes: Boxes, as the files have them.
        anchors: Sizes of the anchors in pixels of the model's input ``(k,)``, a size being the root of the area.
        scale: Pixels of the model's input for a pixel of a stored image.
        report: Receives a fault where most boxes are out of reach, a warning where some are.
    """
    if not len(anchors) or not len(boxes.xywh):
        return
    sizes = np.sqrt((boxes.xywh[:, 2:].clip(min=0) * scale).prod(1))
    small, large = sizes < anchors.min() / OUT_OF_REACH, sizes > anchors.max() * OUT_OF_REACH
    share = (small | large).mean()
    if share >= SOME_OUT_OF_REACH:
        text = f'{_share(small)} of the boxes are more than {OUT_OF_REACH} times smaller, {_share(large)} larger than '
        where = f'the anchors, whose sizes are {anchors.min():.0f} to {anchors.max():.0f} pixels'
        median = f'the median box has {np.median(sizes):.1f} pixels where the model sees it'
        report.judge('anchor-reach', f'{boxes.where}: {text}{where}; {median}', fault=share >= MOST_OUT_OF_REACH)


def anchor_sizes(model: nn.Module) -> np.ndarray:
    """Returns the sizes of all anchors of a detector, in pixels; none if it has points or queries instead."""
    generators = [getattr(module, 'prior_generator', None) for module in model.modules()]
    levels = [level for generator in generators for level in getattr(generator, 'base_anchors', ())]
    sizes = [(level[:, 2:] - level[:, :2]).clamp(min=0).prod(1).sqrt().cpu().double().numpy() for level in levels]
    return np.concatenate(sizes) if sizes else np.zeros(0)


def scale_of(batch: dict) -> float:
    """Returns how many pixels of the model's input one of a stored image becomes, the median over a batch."""
    samples = batch.get('data_samples')
    metas = [getattr(sample, 'metainfo', {}) for sample in (samples if isinstance(samples, (list, tuple)) else ())]
    scales = [meta['scale_factor'] for meta in metas if meta.get('scale_factor') is not None]
    return float(np.median([np.prod(scale[:2]) ** 0.5 for scale in scales])) if scales else 1.0


def _where(boxes: Boxes, chosen: np.ndarray) -> Boxes:
    images = [image for image, keep in zip(boxes.images, chosen) if keep]
    return Boxes(boxes.where, boxes.xywh[chosen], boxes.sizes[chosen], images, boxes.area[chosen])


def _share(chosen: np.ndarray) -> str:
    return f'{int(chosen.sum())} of {len(chosen)} ({chosen.mean():.1%})'


def _first(boxes: Boxes, chosen: np.ndarray) -> str:
    index = int(np.flatnonzero(chosen)[0])
    return f'the first in {boxes.images[index]}: {[round(float(v), 1) for v in boxes.xywh[index]]}'
