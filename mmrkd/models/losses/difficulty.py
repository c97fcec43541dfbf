"""How difficult pixels are, for a teacher and for its student (RDD). Nothing here has a gradient but the average."""

from typing import Literal, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from mmrkd.models.losses.divergences import precise

Combination = Literal['xor', 'or', 'and', 'student']


@torch.no_grad()
def difficulty_weight(logits: Tensor, auxiliary_logits: Tensor) -> Tensor:
    r"""How easy a teacher finds each position: how near its auxiliary head comes to its decode head.

    .. math:: w = \exp(-D), \qquad D = KL(softmax(a_t) \| softmax(z_t))

    The auxiliary head is the target (RDD, arXiv 2407.03719; the released direction).

    Args:
        logits: Of the decode head, ``(N, K, h, w)``. Detached here.
        auxiliary_logits: Of the auxiliary head, same shape. Detached here.

    Returns:
        ``(N, h, w)`` in (0, 1].
    """
    log_p, log_q = (F.log_softmax(precise(z), dim=1) for z in (auxiliary_logits, logits))
    return (-(log_p.exp() * (log_p - log_q)).sum(dim=1).clamp(min=0)).exp()


@torch.no_grad()
def true_class_probability(logits: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
    """Returns the probability of the true class of each pixel, ``(N, H, W)``; anything where it is not known.

    Args:
        logits: ``(N, K, H, W)``. Detached here.
        labels: ``(N, H, W)``.
        valid: Pixels whose class is known, ``(N, H, W)``.
    """
    known = labels.where(valid, labels.new_zeros(()))
    return F.log_softmax(precise(logits), dim=1).gather(1, known.unsqueeze(1)).squeeze(1).exp()


@torch.no_grad()
def hard_pixels(probabilities: Tensor, valid: Tensor, theta: float = 0.7, min_kept: int = 100000) -> Tensor:
    r"""The pixels that a model is unsure of: :math:`M = \{p \le \max(\theta, p_{(min\_kept)})\}`.

    Args:
        probabilities: Of the true class, any shape.
        valid: Pixels that are not ignored, same shape: the others are never in M, and count for nothing.
        theta: Pixels up to this probability are hard.
        min_kept: So many of the least probable ones are hard in any case; all where there are fewer. At 0 it is theta
            alone that counts.

    Returns:
        A mask of the same shape.
    """
    ranked = probabilities.masked_fill(~valid, 2.0).flatten()
    if min_kept <= 0 or ranked.numel() == 0:
        return valid & (probabilities <= theta)
    least = ranked.sort().values[min(min_kept, ranked.numel()) - 1]  # kthvalue is not deterministic on a GPU
    return valid & (probabilities <= least.clamp(min=theta))


def combined_pixels(student: Tensor, teacher: Tensor, combination: Combination = 'xor') -> Tensor:
    """Combines the hard pixels of two models.

    Args:
        student: Mask of the student.
        teacher: Mask of the teacher, same shape.
        combination: ``'xor'``: hard for one of them alone. ``'or'``, ``'and'``. ``'student'``: hard for the student,
            whatever the teacher finds (online hard example mining).

    Raises:
        ValueError: There is no such combination.
    """
    if combination == 'student':
        return student
    functions = {'xor': torch.logical_xor, 'or': torch.logical_or, 'and': torch.logical_and}
    if combination not in functions:
        raise ValueError(f'combination must be one of {(*functions, "student")}, found {combination!r}')
    return functions[combination](student, teacher)


def mask_average(values: Tensor, mask: Tensor, weights: Optional[Tensor] = None) -> Tensor:
    r"""Weighted average over a mask, 0 where nothing is in it: :math:`\sum_M w v / \sum_M w`.

    Args:
        values: Any shape. Gradients flow from inside the mask alone, whatever is outside (NaN included).
        mask: Same shape.
        weights: Same shape, >= 0. Defaults to None: 1.
    """
    shares = mask_shares(mask, weights)
    return (shares * values.masked_fill(~mask, 0)).sum()


@torch.no_grad()
def mask_shares(mask: Tensor, weights: Optional[Tensor] = None) -> Tensor:
    """Returns what each element counts in :func:`mask_average`: they sum to 1, or to 0 where nothing is in the mask."""
    shares = mask.float() if weights is None else precise(weights) * mask
    total = shares.sum()
    return shares / total.where(total > 0, torch.ones_like(total))
