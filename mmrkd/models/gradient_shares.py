"""How strongly loss terms pull at the student's features, beside its own losses."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from fnmatch import fnmatch
from typing import Any, Optional, Union

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from mmrkd.models.heads import sum_losses

SCALES = (2.0**16, 2.0**8, 1.0, 2.0**-8)
"""Factors on a loss whose gradient is in float16, where small and large numbers are lost; the first that fits."""

Patterns = Union[str, Sequence[str]]
Gradients = list[Optional[Tensor]]
Point = Union[Tensor, tuple[Tensor, ...]]


def terms_of(losses: Mapping[str, Any], patterns: Mapping[str, Patterns]) -> dict[str, dict[str, Any]]:
    """Returns weight -> those loss terms that it multiplies; a term belongs to the first weight that names it."""
    left, found = {key: value for key, value in losses.items() if 'loss' in key}, {}
    for weight, own in patterns.items():
        own = (own,) if isinstance(own, str) else own
        found[weight] = {key: left.pop(key) for key in list(left) if any(fnmatch(key, pattern) for pattern in own)}
    return found


def measure(
    groups: Sequence[dict[str, Any]],
    task: dict[str, Any],
    points: Sequence[Point],
    w_task: float = 1.0,
    with_sum: bool = False,
) -> list[float]:
    """Returns the share of each group of loss terms, see :class:`mmrkd.models.balance.Balance`; 0 where there is none.

    Costs one backward pass for the task loss and one for each group, from the losses to the features and no further.
    The graph is kept. Every process must call it with as many groups.

    Args:
        groups: Terms by name; their sum counts.
        task: The student's own losses.
        points: Features of the student; a tuple is one feature in several views.
        w_task: Weight of ``task``; 0 counts as 1.
        with_sum: Whether the share of the sum of all groups is returned, too, as the last one.
    """
    owners, points = _flat(points)
    device = points[0].device if points else sum_losses(task).device
    squares = torch.zeros(len(groups) + with_sum, 2, device=device)
    if points:
        with _without_autocast(device):
            reference = _gradients(task, points)
            for row, grads in zip(squares, _with_sum(_each(groups, points), with_sum)):
                touched = {owner for owner, own in zip(owners, grads) if own is not None}
                reached = [r for owner, r in zip(owners, reference) if owner in touched]
                row.copy_(torch.stack([_square(grads, device), _square(reached, device)]))
    all_reduce(squares, op='mean')
    weight = w_task or 1.0
    ratios = [math.sqrt(own / of) / weight if of > 0 else 0.0 for own, of in squares.double().tolist()]
    return [ratio if math.isfinite(ratio) else 0.0 for ratio in ratios]


def _flat(points: Sequence[Point]) -> tuple[list[int], list[Tensor]]:
    """Returns all tensors that need a gradient, each once, and beside each the number of the feature that it is of."""
    parts = [(i, t) for i, point in enumerate(points) for t in ((point,) if isinstance(point, Tensor) else point)]
    unique = {id(t): (i, t) for i, t in reversed(parts) if t.requires_grad}
    return [i for i, _ in unique.values()], [t for _, t in unique.values()]


def _each(groups: Sequence[dict[str, Any]], points: Sequence[Tensor]) -> Iterator[Gradients]:
    for group in groups:
        yield _gradients(group, points)


def _with_sum(parts: Iterator[Gradients], with_sum: bool) -> Iterator[Gradients]:
    """Yields gradients, and in the end their sum."""
    total: Gradients = []
    for grads in parts:
        if with_sum:
            total = [b if a is None else a if b is None else a + b for a, b in zip(total or [None] * len(grads), grads)]
        yield grads
    if with_sum:
        yield total


def _gradients(losses: dict[str, Any], points: Sequence[Tensor]) -> Gradients:
    """Gradients of a sum of losses in float32; ``None`` where it does not depend on a point."""
    loss = sum_losses(losses) if losses else torch.zeros(())
    if not loss.requires_grad:
        return [None] * len(points)
    half = any(point.dtype == torch.float16 for point in points)
    for scale in SCALES if half else (1.0,):
        found = torch.autograd.grad(loss * scale, points, retain_graph=True, allow_unused=True)
        grads = [None if grad is None else grad.float() / scale for grad in found]
        if all(grad is None or bool(grad.isfinite().all()) for grad in grads):
            break
    return grads


def _square(grads: Gradients, device: torch.device) -> Tensor:
    squares = [grad.square().sum() for grad in grads if grad is not None]
    return torch.stack(squares).sum() if squares else torch.zeros((), device=device)


def _without_autocast(device: torch.device) -> AbstractContextManager:
    """A backward pass runs in the types of its forward pass."""
    return torch.autocast(device.type, enabled=False) if device.type in ('cpu', 'cuda') else nullcontext()
