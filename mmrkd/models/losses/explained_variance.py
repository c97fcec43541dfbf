"""How much of a target an estimate explains."""

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def explained_variance(estimates: Sequence[Tensor], targets: Sequence[Tensor]) -> float:
    r"""Share of the variance of targets that estimates explain (the coefficient of determination).

    .. math::
        1 - \frac{\sum_l \mathrm{mean}[(t_l - e_l)^2]}{\sum_l \mathrm{mean}[(t_l - \bar t_l)^2]}

    with the mean of each channel :math:`\bar t_l`: a constant explains nothing.

    Args:
        estimates: One tensor for each level, ``(N, C_l)`` or ``(N, C_l, H_l, W_l)``.
        targets: Same shapes.

    Returns:
        At most 1, for equality; 0 for the mean of each channel, below 0 for what is worse; NaN if the targets do not
        vary.
    """
    left = whole = 0.0
    for estimate, target in zip(estimates, targets):
        estimate, target = estimate.float(), target.float()
        mean = target.mean([0, *range(2, target.dim())], keepdim=True)
        left += float((target - estimate).square().mean())
        whole += float((target - mean).square().mean())
    return 1 - left / whole if whole > 0 else float('nan')
