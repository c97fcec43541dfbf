"""Branches and their mixture, which teach each other (OKDHP, arXiv 2108.02092). Gradients flow to both sides.

Whoever wants a target that is not pulled detaches it first: that is an argument of the method, not of its arithmetic.
"""

import math
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from mmrkd.models.losses.divergences import precise
from mmrkd.models.losses.shapes import check_maps


def mixed_maps(scores: Tensor, maps: Tensor) -> Tensor:
    r"""Mixes the maps of branches, channel by channel: :math:`E = \sum_b a_b H_b`, a the softmax over branches.

    Args:
        scores: ``(N, B, K)``. Gradients flow.
        maps: ``(N, B, K, h, w)``. Gradients flow.

    Returns:
        ``(N, K, h, w)``.

    Raises:
        ValueError: The shapes do not belong together.
    """
    if maps.dim() != 5 or scores.shape != maps.shape[:3]:
        raise ValueError(
            f'expected scores (N, B, K) of maps (N, B, K, h, w), found {tuple(scores.shape)} and {tuple(maps.shape)}'
        )
    shares = precise(scores).softmax(dim=1)
    return (shares[..., None, None] * precise(maps)).sum(dim=1)


def heatmap_mse(heatmaps: Tensor, targets: Tensor, visible: Optional[Tensor] = None) -> Tensor:
    r"""Half of the mean squared error of visible joints: :math:`\frac12 \mathrm{mean}[(v H - v G)^2]`.

    With a teacher's heatmaps as G the loss of Fast Pose Distillation (arXiv 1811.05419). The task loss of mmpose's
    ``KeypointMSELoss`` is the same without the half.

    Args:
        heatmaps: ``(N, J, h, w)``. Gradients flow.
        targets: Same shape. Gradients flow.
        visible: v, ``(N, J)`` or ``(N, J, 1)``. Defaults to None: 1.

    Returns:
        A scalar >= 0, the mean over N, J, h and w: an invisible joint counts as 0.

    Raises:
        ValueError: The shapes do not belong together.
    """
    check_maps(heatmaps, targets)
    heatmaps, targets = (_seen(maps, visible) for maps in (heatmaps, targets))
    return F.mse_loss(heatmaps, targets) / 2


def heatmap_kl(heatmaps: Tensor, targets: Tensor, visible: Optional[Tensor] = None) -> Tensor:
    r"""KL divergence of where each joint is.

    .. math:: \frac{1}{N h w} \sum_{n,j} KL(softmax_{hw}(v E) \| softmax_{hw}(v H))

    The sum is one over joints, an invisible one gives 0, and there is no temperature, as released. Heatmaps that end
    near 0 and 1 are almost uniform distributions, so the value is tiny beside a squared error.

    Args:
        heatmaps: H, ``(N, J, h, w)``. Gradients flow.
        targets: E, same shape. Gradients flow.
        visible: v, ``(N, J)`` or ``(N, J, 1)``. Defaults to None: 1.

    Returns:
        A scalar >= 0.
    """
    log_q, log_p = (F.log_softmax(_seen(maps, visible).flatten(2), dim=2) for maps in (heatmaps, targets))
    return (log_p.exp() * (log_p - log_q)).sum() / (log_p.shape[0] * log_p.shape[2])


def class_kl(logits: Tensor, targets: Tensor, sigmoid: bool = False) -> Tensor:
    r"""KL divergence of the classes of each position, averaged over images and positions.

    .. math:: \frac{1}{N h w} \sum_{n,p} KL(softmax(E) \| softmax(H))

    Args:
        logits: H, ``(N, K, h, w)``. Gradients flow.
        targets: E, same shape. Gradients flow.
        sigmoid: Whether the classes are scored one by one: the sum over them of Bernoulli divergences. Defaults to
            False.

    Returns:
        A scalar >= 0.
    """
    logits, targets = (precise(z) for z in (logits, targets))
    if sigmoid:
        logits, targets = (torch.stack([z, torch.zeros_like(z)], dim=1) for z in (logits, targets))
    log_q, log_p = (F.log_softmax(z, dim=1) for z in (logits, targets))
    positions = logits.shape[0] * logits.shape[-2] * logits.shape[-1]
    return (log_p.exp() * (log_p - log_q)).sum() / positions


def consistency_ramp(done: float, length: float) -> float:
    r"""Factor of what branches learn from their mixture: :math:`\exp(-5 (1 - \min(done / length, 1))^2)`.

    Args:
        done: How far the training is, for example in epochs.
        length: Where the factor reaches 1, in the same unit. At 0 it is always 1.
    """
    left = 1 - min(max(done, 0) / length, 1) if length > 0 else 0
    return math.exp(-5 * left**2)


def _seen(maps: Tensor, visible: Optional[Tensor]) -> Tensor:
    maps = precise(maps)
    if visible is not None and visible.numel() != maps.shape[0] * maps.shape[1]:
        raise ValueError(
            f'visible: {tuple(maps.shape[:2])} expected, a number for each joint, found {tuple(visible.shape)}'
        )
    return maps if visible is None else maps * visible.reshape(*maps.shape[:2], 1, 1).to(maps.dtype)
