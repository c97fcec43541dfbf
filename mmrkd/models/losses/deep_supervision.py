"""How much each exit of a network counts, by what it still has to learn: DSKD."""

import torch
from torch import Tensor

ALLOCATIONS = ('softmax', 'proportional', 'uniform')


def allocated_weights(losses: Tensor, how: str = 'softmax') -> Tensor:
    r"""Weights of several exits out of their losses (DSKD, `loss-based weight allocation`, arXiv 2202.07846).

    .. math:: softmax: w_i = \frac{e^{L_i}}{\sum_j e^{L_j}} \qquad proportional: w_i = \frac{L_i}{\sum_j L_j}
        \qquad uniform: w_i = \frac1M

    A harder exit counts more. The authors' code is not public: that the weights are a softmax is second hand, the other
    two are ours.

    Args:
        losses: Losses of the exits, ``(M,)``, >= 0. Detached here: the weights are constants for the gradient.
        how: ``'softmax'``, ``'proportional'`` or ``'uniform'``. Defaults to ``'softmax'``.

    Returns:
        ``(M,)``, adding up to 1.

    Raises:
        ValueError: ``how`` is unknown.
    """
    if how not in ALLOCATIONS:
        raise ValueError(f'the allocation must be one of {ALLOCATIONS}, found {how!r}')
    losses = losses.detach()
    if how == 'softmax':
        return losses.softmax(dim=0)
    total = losses.sum()
    uniform = torch.full_like(losses, 1 / len(losses))
    return uniform if how == 'uniform' else torch.where(total > 0, losses / total.clamp(min=1e-12), uniform)
