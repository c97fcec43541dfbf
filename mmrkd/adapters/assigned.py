"""What the student's own assigner decided while the student computed its own losses."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Optional

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor, nn

from mmrkd.adapters.reuse import hiding


@dataclass(frozen=True)
class AssignedTargets:
    """The label of each prediction, in the order of :meth:`ModelAdapter.logits`. Detached.

    Attributes:
        labels: ``(P,)`` for each level; K stands for the background.
        label_weights: ``(P,)`` for each level; 0 where a prediction is ignored or its prior lies outside of the image.
        box_targets: ``(P, 4)`` for each level in the head's own form, meaningful where there is an object; ``None`` if
            none were returned.
        num_pos: Number of positive predictions, averaged over the processes, at least 1.
    """

    labels: tuple[Tensor, ...]
    label_weights: tuple[Tensor, ...]
    num_pos: Tensor
    box_targets: Optional[tuple[Tensor, ...]] = None


class TargetCapture:
    """Receives what was assigned during one loss.

    Args:
        wants_regions: Whether :attr:`regions` are asked for.

    Attributes:
        assigned: Of the dense head; stays ``None`` where that has none to give.
        regions: :class:`mmrkd.adapters.regions.Regions` of the second stage; ``None`` without one.
    """

    def __init__(self, wants_regions: bool = False) -> None:
        self.wants_regions = wants_regions
        self.assigned: Optional[AssignedTargets] = None
        self.regions: Any = None


@contextmanager
def kept_targets(head: nn.Module) -> Iterator[list[Any]]:
    """Keeps what ``head.get_targets`` returns, inside one ``with`` block: nothing is assigned twice."""
    kept: list[Any] = []
    own = head.get_targets

    def get_targets(*args: Any, **kwargs: Any) -> Any:
        kept.append(own(*args, **kwargs))
        return kept[-1]

    with hiding(head, 'get_targets', get_targets):
        yield kept


def read_targets(returned: Any, rows: Sequence[int], num_classes: int) -> Optional[AssignedTargets]:
    """Finds labels and their weights in what a ``get_targets`` of mmdet returned.

    RetinaNet's gives ``(labels, label_weights, ...)``, that of ATSS, GFL, TOOD and RTMDet has the anchors in front,
    that of FCOS gives ``(labels, bbox_targets)``; each is a list over levels.

    Args:
        returned: The returned tuple.
        rows: Number of predictions of each level.
        num_classes: K.

    Returns:
        The targets; ``None`` if nothing in the tuple has the form of labels.
    """
    parts = [_by_level(part, rows) for part in returned] if isinstance(returned, (tuple, list)) else []
    index = next((i for i, part in enumerate(parts) if part and not part[0].is_floating_point()), None)
    if index is None:
        return None
    labels = parts[index]
    following = parts[index + 1] if index + 1 < len(parts) else None
    weights = following or tuple(torch.ones_like(level, dtype=torch.float) for level in labels)
    positive = sum(
        ((label >= 0) & (label < num_classes) & (weight > 0)).sum() for label, weight in zip(labels, weights)
    )
    boxes = next(filter(None, (_by_level(part, rows, 4) for part in returned[index + 1 :])), None)
    return AssignedTargets(labels, weights, averaged(positive.float()).clamp(min=1), boxes)


def _by_level(part: Any, rows: Sequence[int], columns: int = 1) -> Optional[tuple[Tensor, ...]]:
    if not isinstance(part, (tuple, list)) or len(part) != len(rows):
        return None
    if not all(isinstance(level, Tensor) and level.numel() == n * columns for level, n in zip(part, rows)):
        return None
    return tuple(level.detach().reshape((-1,) if columns == 1 else (-1, columns)) for level in part)


def averaged(count: Tensor) -> Tensor:
    """Returns the mean over the processes."""
    if get_world_size() > 1:
        all_reduce(count, 'mean')
    return count
