"""What one detector finds and another does not, in the same image."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Found:
    """Detections (or objects) of one image, the surest first.

    Attributes:
        boxes: ``(M, 4)``, corners.
        labels: ``(M,)``.
        scores: ``(M,)``; 1 for objects.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        order = np.argsort(-np.asarray(self.scores, dtype=float), kind='stable')
        self.boxes = np.asarray(self.boxes, dtype=float).reshape(-1, 4)[order]
        self.labels, self.scores = np.asarray(self.labels)[order], np.asarray(self.scores, dtype=float)[order]


@dataclass
class Differences:
    """How the detections of an image differ from those of a reference, by their numbers.

    Attributes:
        same: Detections that the reference has, too, with the same class.
        gained: Detections where the reference has nothing.
        renamed: Detection -> that of the reference which lies there with another class.
        lost: Detections of the reference where there is nothing.
    """

    same: list[int] = field(default_factory=list)
    gained: list[int] = field(default_factory=list)
    renamed: dict[int, int] = field(default_factory=dict)
    lost: list[int] = field(default_factory=list)


def compare_found(found: Found, reference: Found, overlap: float = 0.5) -> Differences:
    """Compares detections with those of a reference.

    Each has at most one partner: first of its own class, then of another one; the surest choose first, and each the
    one that it overlaps most.

    Args:
        found: Detections.
        reference: What they are compared with.
        overlap: Intersection over union from which two boxes are of one object.
    """
    overlaps = box_overlaps(found.boxes, reference.boxes)
    alike = found.labels[:, None] == reference.labels[None]
    result, free = Differences(), np.ones(len(reference.boxes), dtype=bool)
    partner_of: dict[int, int] = {}
    for possible in (alike, ~alike):
        for index in range(len(found.boxes)):
            if index in partner_of:
                continue
            values = np.where(possible[index] & free & (overlaps[index] >= overlap), overlaps[index], -1.0)
            if len(values) and values.max() >= 0:
                partner_of[index] = int(values.argmax())
                free[partner_of[index]] = False
    for index in range(len(found.boxes)):
        partner = partner_of.get(index)
        if partner is None:
            result.gained.append(index)
        elif alike[index, partner]:
            result.same.append(index)
        else:
            result.renamed[index] = partner
    result.lost = np.flatnonzero(free).tolist()
    return result


def box_overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the intersection over union of each of ``(M, 4)`` with each of ``(N, 4)``, ``(M, N)``."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    inside = (high - low).clip(0).prod(axis=-1)
    areas = [(b[:, 2:] - b[:, :2]).clip(0).prod(axis=-1) for b in (boxes, others)]
    union = areas[0][:, None] + areas[1][None] - inside
    return np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)


def summary(found: Sequence[Differences]) -> str:
    """Counts differences over images: ``'3 only here, 1 lost, 0 renamed'``."""
    gained, lost, renamed = (sum(len(getattr(d, name)) for d in found) for name in ('gained', 'lost', 'renamed'))
    return f'{gained} only here, {lost} lost, {renamed} renamed'
