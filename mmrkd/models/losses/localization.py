"""LD: distributions of boxes, and where they are worth learning."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmrkd.models.losses.functional import _check_logits, _precise

NEAREST = 9  # anchors of each level that set the threshold of a box, as in ATSS
LOWEST = 0.25  # of that threshold: where the region ends


def box_kl(student: Tensor, teacher: Tensor, bins: int, tau: float, reduction: str = 'mean') -> Tensor:
    r"""KL of the distributions of GFL-type heads, for each prediction (Zheng et al., arXiv 2102.12252, Eq. 5).

    .. math::
        \frac{1}{4} \sum_{side} \tau^2 \, \mathrm{KL}(\mathrm{softmax}(b_t/\tau) \,\|\, \mathrm{softmax}(b_s/\tau))

    Args:
        student: ``(P, 4 * bins)``, or ``(P, 4, bins)``. Gradients flow.
        teacher: Same shape. Detached here.
        bins: Values of a distribution.
        tau: Temperature > 0.
        reduction: ``'sum'`` over the bins is KL; ``'mean'``, as LD is released, is KL / bins.

    Returns:
        ``(P,)``, each >= 0: the mean of the four sides.

    Raises:
        ValueError: Shapes differ, or an argument is unknown or not positive.
    """
    _check_logits(student, teacher, tau)
    if reduction not in ('sum', 'mean'):
        raise ValueError(f"reduction must be 'sum' or 'mean', found {reduction!r}")
    log_student, log_teacher = (
        F.log_softmax(_precise(b).reshape(b.numel() // (4 * bins), 4, bins) / tau, dim=2)
        for b in (student, teacher.detach())
    )
    terms = F.kl_div(log_student, log_teacher, reduction='none', log_target=True)
    return getattr(terms, reduction)(dim=2).mean(dim=1) * tau**2


@torch.no_grad()
def valuable_region(anchors: Tensor, level_sizes: Sequence[int], gt: Tensor) -> Tensor:
    r"""How much each anchor is worth learning from: it lies around an object, and not near enough to be positive.

    An anchor belongs to the region of an object g if :math:`0.25\, t_g \le \mathrm{DIoU}(a, g) < t_g` (arXiv
    2102.12252, Algorithm 1). :math:`t_g` is mean plus (unbiased) deviation of the IoUs of the 9 nearest anchors of each
    level, the threshold of ATSS. All anchors of all levels are candidates.

    Args:
        anchors: ``(P, 4)`` of one image as x1, y1, x2, y2, level by level.
        level_sizes: Anchors of each level.
        gt: ``(G, 4)``, boxes of the image.

    Returns:
        ``(P,)``: the largest IoU with an object to whose region the anchor belongs, 0 outside of all. No gradient.

    Raises:
        ValueError: The levels do not add up to the anchors.
    """
    if sum(level_sizes) != len(anchors):
        raise ValueError(f'levels of {list(level_sizes)} anchors do not add up to {len(anchors)}')
    anchors, gt = _precise(anchors), _precise(gt)
    if not len(gt) or not len(anchors):
        return anchors.new_zeros(len(anchors))
    ious, distances, diagonals = _geometry(anchors, gt)
    levels = zip(*(values.split(list(level_sizes)) for values in (ious, distances)))
    near = torch.cat([_nearest(*level) for level in levels])
    threshold = near.mean(dim=0) + (near.std(dim=0) if len(near) > 1 else 0)
    dious = ious - distances / diagonals.clamp(min=1e-6)
    inside = (dious >= LOWEST * threshold) & (dious < threshold)
    return (ious * inside).amax(dim=1)


def _nearest(ious: Tensor, distances: Tensor) -> Tensor:
    """IoUs of the anchors of one level that are nearest to each box, ``(<= 9, G)``."""
    return ious.gather(0, distances.topk(min(NEAREST, len(distances)), dim=0, largest=False).indices)


def _geometry(anchors: Tensor, gt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """IoU, squared distance of the centres and squared diagonal of the hull of each anchor and box, ``(P, G)``."""
    a, g = anchors[:, None], gt[None]
    sizes = (torch.minimum(a[..., 2:], g[..., 2:]) - torch.maximum(a[..., :2], g[..., :2])).clamp(min=0)
    overlap = sizes.prod(dim=2)
    areas = [(b[..., 2:] - b[..., :2]).prod(dim=2) for b in (a, g)]
    hull = torch.maximum(a[..., 2:], g[..., 2:]) - torch.minimum(a[..., :2], g[..., :2])
    shift = (a[..., :2] + a[..., 2:] - g[..., :2] - g[..., 2:]) / 2
    return overlap / (areas[0] + areas[1] - overlap).clamp(min=1e-6), shift.square().sum(2), hull.square().sum(2)
