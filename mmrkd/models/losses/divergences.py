"""Divergences of dense outputs, level by level, that keep one tensor for the backward pass: their gradient.

The logits of a dense detector are its largest tensors: written down with autograd, a KL of them keeps six copies, and
their concatenation one more.
"""

from collections.abc import Sequence
from typing import Any, Optional, Union

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Levels = Union[Tensor, Sequence[Tensor]]
LEAST_PART, MOST_PARTS = 2**19, 16  # numbers in a part of a level, and parts that a level is worked through in


class _KnownGradient(torch.autograd.Function):
    """A value whose gradient is known with it; that gradient is all that is kept."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        ctx.dtype = student.dtype
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return (outer * gradient).to(ctx.dtype), None, None


def levels_of(values: Levels) -> Sequence[Tensor]:
    """Returns the levels; a tensor by itself is one."""
    return [values] if isinstance(values, Tensor) else values


def precise(values: Tensor) -> Tensor:
    """Returns values in float32, or in float64 if that is what they are."""
    return values if values.dtype == torch.float64 else values.float()


def bernoulli_sum(student: Tensor, teacher: Tensor, tau: float, columns: Optional[int] = None) -> tuple[Tensor, Tensor]:
    r"""Sum of :math:`\tau^2 KL(\sigma(z_t/\tau) \| \sigma(z_s/\tau))` over predictions and classes.

    Its gradient, :math:`\tau (\sigma(z_s/\tau) - \sigma(z_t/\tau))`, is kept. It is not differentiated twice. It is
    worked through part by part, so that what is needed for a moment is small, too.

    Args:
        student: ``(P, K)``, or maps ``(N, A * K, H, W)``, of which nothing need be copied. Gradients flow.
        teacher: Same shape. Detached here.
        tau: Temperature > 0.
        columns: K of maps.

    Returns:
        The sum, and the sum over P of the teacher's highest score: its soft count of objects.
    """
    with torch.no_grad():
        gradient = torch.empty_like(student, dtype=_type(student)) if student.requires_grad else None
        values, objects = [], []
        for own, other, kept in zip(
            *(_parts(z) for z in (student, teacher, student if gradient is None else gradient))
        ):
            z_s, z_t = (_tempered(z, tau) for z in (own, other))
            p = z_t.sigmoid()
            scores = p if columns is None else p.unflatten(1, (-1, columns)).transpose(1, 2)
            objects.append(scores.amax(dim=1).sum())
            # p log(p/q) + (1-p) log((1-p)/(1-q)), log p = z - softplus(z), log(1-p) = -softplus(z): exact at background
            terms = F.softplus(z_s).sub_(F.softplus(z_t))
            values.append(terms.sub_((z_s - z_t).mul_(p)).sum())
            if gradient is not None:
                kept.copy_(z_s.sigmoid().sub_(p).mul_(tau))
        value = torch.stack(values).sum() * tau**2
    return value if gradient is None else _KnownGradient.apply(student, value, gradient), torch.stack(objects).sum()


def softmax_sum(student: Tensor, teacher: Tensor, tau: float, weights: Optional[Tensor] = None) -> Tensor:
    r"""Sum over rows of :math:`w \tau^2 KL(softmax(z_t/\tau) \| softmax(z_s/\tau))`.

    Its gradient, :math:`w \tau (softmax(z_s/\tau) - softmax(z_t/\tau))`, is kept. It is not differentiated twice.

    Args:
        student: ``(R, K)``. Gradients flow.
        teacher: ``(R, K)``. Detached here.
        tau: Temperature > 0.
        weights: ``(R,)``. Detached here. Defaults to None: 1.
    """
    with torch.no_grad():
        log_s, log_t = (F.log_softmax(_tempered(z, tau), dim=1) for z in (student, teacher))
        q = log_t.exp()
        rows = log_t.sub_(log_s).mul_(q).sum(dim=1)
        value = (rows if weights is None else rows * weights).sum() * tau**2
        if not student.requires_grad:
            return value
        gradient = log_s.exp_().sub_(q).mul_(tau if weights is None else (tau * weights).unsqueeze(1))
    return _KnownGradient.apply(student, value, gradient)


def _type(values: Tensor) -> torch.dtype:
    return torch.float64 if values.dtype == torch.float64 else torch.float32


def _parts(values: Tensor) -> Sequence[Tensor]:
    """Parts of rows, or of the rows of maps."""
    dim = 2 if values.dim() == 4 else 0
    return values.tensor_split(max(1, min(MOST_PARTS, values.shape[dim], values.numel() // LEAST_PART)), dim)


def _tempered(logits: Tensor, tau: float) -> Tensor:
    logits = precise(logits.detach())
    return logits if tau == 1 else logits / tau
