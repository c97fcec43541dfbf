"""Brings the boxes of dense heads to one unit, so that a weight means the same for every family.

The unit is the size of the box itself. Of a difference between two boxes, sides and centres are measured in widths and
heights of the target, sizes as the logarithm of their ratio. A box that is 10% too large then weighs 0.05 everywhere:
``|log 1.1| / 2`` for heads that regress sizes, ``(0.1 / 2)`` for those that regress sides.

Each form is a pair of functions on ``(P, 4)``: what is compared, and what a difference is divided by (of the target).
"""

from dataclasses import dataclass
from typing import Any, Callable, Optional

import torch
from torch import Tensor

LARGEST = 4.135166556742356  # |log(16 / 1000)|: mmdet's coders take no larger change of a size
LEAST = 1.0  # cells: a box that is smaller than a cell of its level is measured in cells


@dataclass(frozen=True)
class BoxForm:
    """How a head writes a box down.

    Attributes:
        unit: In words, for the layout: two heads line up only if it is the same.
        values: ``(raw (P, 4), level) -> (P, 4)``, in a form whose differences mean something.
        scales: ``(values (P, 4)) -> (P, 4)`` of the target, or ``None`` for 1.
        corners: ``(values (P, 4)) -> (P, 4)``: x1, y1, x2, y2 in units of the prior and seen from it. Two boxes of one
            prior overlap there as they do in pixels. ``None`` where that is not declared.
    """

    unit: str
    values: Callable[[Tensor, int], Tensor]
    scales: Optional[Callable[[Tensor, int], Tensor]] = None
    corners: Optional[Callable[[Tensor], Tensor]] = None


def deltas(head: Any) -> BoxForm:
    """Shift of the centre in sizes of the prior, logarithm of the size; the coder's deviations are taken out."""
    stds = torch.as_tensor(head.bbox_coder.stds, dtype=torch.float32)

    def corners(values: Tensor) -> Tensor:
        centre, half = values[:, :2], values[:, 2:].float().clamp(-LARGEST, LARGEST).exp().to(values) / 2
        return torch.cat([centre - half, centre + half], dim=1)

    return BoxForm('deltas of the prior', lambda raw, _: raw * stds.to(raw), corners=corners)


def distances(head: Any, unit: str, logarithmic: bool = False) -> BoxForm:
    """Distances of the four sides, left, top, right, bottom, from the cell.

    Args:
        head: Dense head.
        unit: ``'pixels'``, ``'strides'`` or ``'base lengths'`` (of FoveaBox).
        logarithmic: Whether the head regresses their logarithms.
    """
    strides = [_pair(stride) for stride in head.prior_generator.strides]
    if unit == 'base lengths':
        cells = [(base / w, base / h) for base, (w, h) in zip(head.base_edge_list, strides)]
    else:
        cells = [(1.0, 1.0) if unit == 'strides' else (1 / w, 1 / h) for w, h in strides]

    def values(raw: Tensor, level: int) -> Tensor:
        sides = raw.float().exp() if logarithmic else raw
        return sides * sides.new_tensor(cells[level] * 2)

    name = f'logarithms of distances in {unit}' if logarithmic else f'distances in {unit}'

    def scales(ltrb: Tensor, _: int) -> Tensor:
        return _sized(ltrb[:, 0] + ltrb[:, 2], ltrb[:, 1] + ltrb[:, 3])

    def corners(ltrb: Tensor) -> Tensor:
        return torch.cat([-ltrb[:, :2], ltrb[:, 2:]], dim=1)

    return BoxForm(name, values, scales, None if logarithmic else corners)


def distances_of_prior(head: Any) -> BoxForm:
    """Distances top, bottom, left, right in sizes of the prior, over a normaliser (the TBLR coder of FSAF)."""
    normalizer = torch.as_tensor(head.bbox_coder.normalizer, dtype=torch.float32)

    def scales(tblr: Tensor, _: int) -> Tensor:
        height, width = tblr[:, 0] + tblr[:, 1], tblr[:, 2] + tblr[:, 3]
        return torch.stack([height, height, width, width], dim=1).clamp(min=LEAST)

    return BoxForm('distances in sizes of the prior', lambda raw, _: raw * normalizer.to(raw), scales)


def corners(_head: Any) -> BoxForm:
    """Upper left and lower right corner in strides (TOOD)."""
    return BoxForm('corners in strides', lambda raw, _: raw, lambda c, _: _sized(c[:, 2] - c[:, 0], c[:, 3] - c[:, 1]))


def centres(head: Any, sigmoid: bool = False) -> BoxForm:
    """Centre in strides, logarithm of the size: in strides (YOLOX), or in sizes of the anchor (YOLOv3).

    Args:
        head: Dense head.
        sigmoid: Whether the head regresses the centre as a logit, within its cell.
    """

    def values(raw: Tensor, _: int) -> Tensor:
        return torch.cat([raw[:, :2].sigmoid() if sigmoid else raw[:, :2], raw[:, 2:]], dim=1)

    def scales(xywh: Tensor, level: int) -> Tensor:
        size = xywh[:, 2:].float().exp()
        if sigmoid:
            size = size * _anchors_in_cells(head, level, len(size)).to(size)
        return torch.cat([size.clamp(min=LEAST), torch.ones_like(size)], dim=1)

    return BoxForm('centre in strides, size of the anchor' if sigmoid else 'centre and size in strides', values, scales)


def distributions(_head: Any) -> BoxForm:
    """Distributions of the four distances in strides (GFL): compared as such, not as numbers."""
    return BoxForm('distributions of distances in strides', lambda raw, _: raw)


def _sized(width: Tensor, height: Tensor) -> Tensor:
    size = torch.stack([width, height], dim=1).clamp(min=LEAST)
    return torch.cat([size, size], dim=1)


def _anchors_in_cells(head: Any, level: int, rows: int) -> Tensor:
    anchors = head.prior_generator.base_anchors[level]
    sizes = anchors[:, 2:] - anchors[:, :2]
    cells = sizes / sizes.new_tensor(_pair(head.prior_generator.strides[level]))
    return cells.repeat(rows // len(cells), 1)


def _pair(stride: Any) -> tuple[float, float]:
    return tuple(stride) if isinstance(stride, (tuple, list)) else (stride, stride)
