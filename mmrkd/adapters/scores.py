"""Brings what a head returns to the logits of the scores that it predicts. Computed in float32.

Each function is exact where it can be, and has a smooth floor where it cannot: a sure miss keeps its gradient.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

FLOOR = 1e-6  # of a probability: its logit stays within 14


def logit_of_probability(probability: Tensor) -> Tensor:
    r"""Logit of a probability, :math:`\log(p + \epsilon) - \log(1 - p + \epsilon)`.

    The floor is added and not clamped to, so that the gradient of a probability of 0 is not 0 too.
    """
    p = _precise(probability)
    return (p + FLOOR).log() - (1 - p + FLOOR).log()


def logit_of_product(one: Tensor, other: Tensor) -> Tensor:
    r"""Logit of :math:`\sigma(a) \sigma(b)`, which is :math:`-\log(e^{-a} + e^{-b} + e^{-a-b})`. Exact.

    Args:
        one: Logits a.
        other: Logits b, of a shape that goes with a.
    """
    a, b = torch.broadcast_tensors(_precise(one), _precise(other))
    return -torch.stack([-a, -b, -a - b]).logsumexp(dim=0)


def logit_of_geometric_mean(one: Tensor, other: Tensor) -> Tensor:
    r"""Logit of :math:`\sqrt{\sigma(a) \sigma(b)}`, as PAA scores. Arguments as in :func:`logit_of_product`."""
    log_p = (F.logsigmoid(_precise(one)) + F.logsigmoid(_precise(other))) / 2
    return log_p - (FLOOR - torch.expm1(log_p)).log()


def flat(maps: Tensor, columns: int) -> Tensor:
    """Turns ``(N, A * columns, H, W)`` into ``(N * H * W * A, columns)``."""
    return maps.permute(0, 2, 3, 1).reshape(-1, columns)


def combined(scores: Tensor, factor: Tensor, columns: int, geometric: bool) -> Tensor:
    """Multiplies maps of scores ``(N, A * K, H, W)`` by maps of one factor ``(N, A, H, W)``, all of them logits."""
    n, channels, height, width = scores.shape
    grouped = scores.reshape(n, channels // columns, columns, height, width)
    combine = logit_of_geometric_mean if geometric else logit_of_product
    return combine(grouped, factor.unsqueeze(2)).reshape(scores.shape)


def _precise(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
