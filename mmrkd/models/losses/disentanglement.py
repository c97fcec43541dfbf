"""How far two sets of features lie apart as distributions: TRED."""

from collections.abc import Sequence
from typing import Union

import torch
from torch import Tensor

from mmrkd.models.losses.functional import _precise

SCALES = (0.5, 1.0, 2.0)


def squared_mmd(a: Tensor, b: Tensor, widths: Union[Sequence[float], Tensor] = SCALES) -> Tensor:
    r"""Squared maximum mean discrepancy of two batches, the biased estimate, with a mean of Gaussian kernels.

    .. math:: MMD^2 = \frac1{N^2} \sum_{ij} k(a_i, a_j) + k(b_i, b_j) - 2 k(a_i, b_j) \qquad
        k(x, y) = \frac1{|S|} \sum_{s \in S} \exp\left(-\frac{\lVert x - y \rVert^2}{2 s^2}\right)

    Args:
        a: ``(N, D)``. Gradients flow.
        b: ``(N', D)``. Gradients flow.
        widths: The widths s > 0 of the kernels. Defaults to (0.5, 1, 2).

    Returns:
        A scalar in [0, 2].
    """
    a, b = _precise(a), _precise(b)
    widths = torch.as_tensor(widths, dtype=a.dtype, device=a.device)

    def mean_kernel(x: Tensor, y: Tensor) -> Tensor:
        squared = (x[:, None] - y[None]).square().sum(dim=2)
        return (-squared[..., None] / (2 * widths.square())).exp().mean()

    return mean_kernel(a, a) + mean_kernel(b, b) - 2 * mean_kernel(a, b)


def median_distance(feats: Tensor) -> Tensor:
    """Returns the median distance between any two rows of ``(N, D)``, detached; 1 where there are no two that differ.

    The unit in which the widths of :func:`squared_mmd` are given.
    """
    distances = torch.pdist(_precise(feats.detach()))
    if distances.numel() == 0:
        return _precise(feats).new_ones(())
    median = distances.median()
    return torch.where(median > 0, median, torch.ones_like(median))
