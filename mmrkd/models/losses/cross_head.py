"""CrossKD: a student's features on the teacher's scale, and what the teacher's head makes of them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmrkd.models.losses.functional import _check_logits, _precise
from mmrkd.models.losses.shapes import check_maps

EPS = 1e-6  # added to a deviation; least area


def align_statistics(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Gives each channel of the student's map mean and deviation of the teacher's (Wang et al., arXiv 2306.11369).

    .. math::
        \frac{f_s - \mathrm{mean}\, f_s}{\mathrm{std}\, f_s + 10^{-6}} \mathrm{std}\, f_t + \mathrm{mean}\, f_t

    Statistics of a channel are those of its N H W values in this batch; the deviation is the unbiased one. The release
    does so; the paper does not mention it.

    Args:
        student: ``(N, C, H, W)``. Gradients flow, through its statistics, too.
        teacher: ``(N, C, H, W)``. Detached here.

    Returns:
        ``(N, C, H, W)``. With one value in a channel there is no deviation: the teacher's mean, without a gradient.

    Raises:
        ValueError: The shapes differ.
    """
    check_maps(student, teacher)
    f_s, f_t = _precise(student), _precise(teacher.detach())
    axes = (0, 2, 3)
    centred, mean = f_s - f_s.mean(axes, keepdim=True), f_t.mean(axes, keepdim=True)
    if f_s.numel() == f_s.shape[1]:
        return centred * 0 + mean
    return centred / (f_s.std(axes, keepdim=True) + EPS) * f_t.std(axes, keepdim=True) + mean


def quality_focal(logits: Tensor, targets: Tensor, weights: Tensor, avg: Tensor) -> Tensor:
    r"""Quality focal loss towards the scores of a teacher (CrossKD, arXiv 2306.11369; QFL, arXiv 2006.04388, Eq. 6).

    .. math::
        \frac{1}{a} \sum_{p,k} w_p \, |\sigma(z) - \sigma(t)| \, \mathrm{BCE}(z, \sigma(t))

    The exponent of the modulator is 1 and it is not detached (both as released). BCE towards a soft target is not 0 at
    equality, but the modulator is.

    Args:
        logits: ``(P, K)``, z. Gradients flow.
        targets: ``(P, K)``, logits t of the teacher. Detached here.
        weights: ``(P,)``, 0 where a prediction is ignored. Detached here.
        avg: What the sum is divided by, a.

    Returns:
        A scalar >= 0.

    Raises:
        ValueError: The shapes differ.
    """
    _check_logits(logits, targets, 1.0)
    z, scores = _precise(logits), _precise(targets.detach()).sigmoid()
    terms = (z.sigmoid() - scores).abs() * F.binary_cross_entropy_with_logits(z, scores, reduction='none')
    return (terms * _precise(weights.detach())[:, None]).sum() / avg


def box_overlaps(boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (arXiv 1902.09630) of boxes, one by one.

    Both stay as they are if an axis of both boxes is shifted or scaled.

    Args:
        boxes: ``(P, 4)`` as x1, y1, x2, y2. Gradients flow.
        targets: ``(P, 4)``. Detached here.

    Returns:
        IoU ``(P,)`` in [0, 1] and GIoU ``(P,)`` in [-1, 1].
    """
    a, b = _precise(boxes), _precise(targets.detach())
    overlap = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(dim=1)
    union = (a[:, 2:] - a[:, :2]).prod(dim=1) + (b[:, 2:] - b[:, :2]).prod(dim=1) - overlap
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(dim=1)
    union, hull = union.clamp(min=EPS), hull.clamp(min=EPS)
    iou = overlap / union
    return iou, iou - (hull - union) / hull
