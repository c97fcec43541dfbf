"""What the student's own assigner decided while the student computed its own losses."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Callable, Optional

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor, nn

from mmrkd.adapters.reuse import hiding
from mmrkd.adapters.structure import tensors_in

ALONE = tuple(
    f'mmdet.models.dense_heads.{name}.get_targets'
    for name in ('anchor_head.AnchorHead', 'atss_head.ATSSHead', 'gfl_head.GFLHead', 'fcos_head.FCOSHead')
)
"""Functions that assign by priors and ground truth, and never look at a prediction."""
DECIDING = (
    *('num_classes', 'cls_out_channels', 'use_sigmoid_cls', 'reg_decoded_bbox', 'train_cfg', 'regress_ranges'),
    *('center_sampling', 'center_sample_radius', 'norm_on_bbox'),
)
"""Attributes of such a head that its assignment depends on, beside its priors and its coder."""


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


class AssignedOnce:
    """What a head assigned to one batch, for further passes of the batch that would assign the same once more.

    An assignment asks the device dozens of times what it has found. One that depends on priors and ground truth alone
    (:func:`assigns_alone`) is the same for every pass of a head, whatever features it is given, and for another head
    that assigns alike (:func:`assign_alike`).
    """

    def __init__(self) -> None:
        self._known: Optional[tuple[list, list, Any]] = None

    def reused(self, head: Optional[nn.Module]) -> AbstractContextManager[None]:
        """Lets ``head.get_targets`` return what is known, inside one ``with`` block, if that is sure to be the same."""
        if not assigns_alone(head):
            return nullcontext()
        own: Callable = head.get_targets

        def get_targets(*args: Any, **kwargs: Any) -> Any:
            shapes = [tuple(tensor.shape) for tensor in tensors_in([args, kwargs])]  # other grids have other priors
            if self._known is None or self._known[0] != shapes or self._known[1] != _versions(self._known[2]):
                returned = own(*args, **kwargs)
                self._known = shapes, _versions(returned), returned
            return _regrouped(self._known[2])

        return hiding(head, 'get_targets', get_targets)


class TargetCapture:
    """Receives what was assigned during one loss.

    Args:
        reads: Whether :attr:`assigned` is wanted. Defaults to True.
        once: What was assigned to this batch before, to be reused and added to.
        wants_regions: Whether :attr:`regions` are asked for.

    Attributes:
        assigned: Of the dense head; stays ``None`` where that has none to give.
        regions: :class:`mmrkd.adapters.regions.Regions` of the second stage; ``None`` without one.
    """

    def __init__(self, reads: bool = True, once: Optional[AssignedOnce] = None, wants_regions: bool = False) -> None:
        self.reads, self.once, self.wants_regions = reads, once or AssignedOnce(), wants_regions
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


def assigns_alone(head: Optional[nn.Module]) -> bool:
    """Whether a head assigns by priors and ground truth alone: it sees no prediction, and draws nothing at random."""
    function = getattr(type(head), 'get_targets', None)
    name = f'{getattr(function, "__module__", "")}.{getattr(function, "__qualname__", "")}'
    sampler = type(getattr(head, 'sampler', None)).__name__
    exchanged = 'get_targets' in getattr(head, '__dict__', {})
    return name in ALONE and sampler in ('NoneType', 'PseudoSampler') and not exchanged


def assign_alike(head: Optional[nn.Module], other: Optional[nn.Module]) -> bool:
    """Whether two such heads assign the same to the same batch, on grids of the same size."""
    if type(head) is not type(other) or not assigns_alone(head):
        return False
    coders = [getattr(h, 'bbox_coder', None) for h in (head, other)]
    same_coder = type(coders[0]) is type(coders[1]) and _simple(coders[0]) == _simple(coders[1])
    same_priors = _simple(head.prior_generator) == _simple(other.prior_generator)
    alike = all(getattr(head, name, None) == getattr(other, name, None) for name in DECIDING)
    return alike and same_coder and same_priors


def _simple(owner: Any) -> dict[str, Any]:
    return {} if owner is None else {name: str(value) for name, value in vars(owner).items()}


def _versions(returned: Any) -> list[int]:
    """Counts writes into tensors: some heads change their targets in place."""
    return [tensor._version for tensor in tensors_in(returned)]


def _regrouped(returned: Any) -> Any:
    """The same tensors in containers of their own."""
    if isinstance(returned, (list, tuple)):
        return type(returned)(_regrouped(part) for part in returned)
    return returned


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
