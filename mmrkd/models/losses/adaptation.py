"""How far one model's features are from another's: what no affine map of theirs explains (MTPD)."""

import torch
from torch import Tensor

RIDGE = 1e-9


class AffineSums:
    r"""Sums over positions from which the best affine map of some features to others follows, in one pass.

    .. math:: cost(A \to B) = \min_{W,b} \frac{|F_B - (W F_A + b)|^2}{|F_B - \overline{F_B}|^2} = 1 - R^2

    The adaptation cost of MTPD (arXiv 2308.09105) as we measure it: the map is a 1x1 convolution, found by ridge
    regression on C x C sums in float64.

    Args:
        ridge: Relative to the mean variance of a channel of A. Defaults to 1e-9, which only keeps dead or doubled
            channels from a division by 0.
    """

    def __init__(self, ridge: float = RIDGE) -> None:
        self.ridge, self.count = ridge, 0
        self.sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, source: Tensor, target: Tensor) -> None:
        """Adds the positions of some images.

        Args:
            source: F_A, ``(N, C_A, h, w)`` or ``(N, C_A)``.
            target: F_B, the same N, h and w.

        Raises:
            ValueError: The positions are not the same.
        """
        if source.shape[:1] + source.shape[2:] != target.shape[:1] + target.shape[2:]:
            raise ValueError(f'features at the same positions expected: {tuple(source.shape)}, {tuple(target.shape)}')
        a, b = (
            f.double().flatten(2).transpose(1, 2).flatten(0, 1) if f.dim() == 4 else f.double()
            for f in (source, target)
        )
        new = dict(a=a.sum(0), b=b.sum(0), aa=a.T @ a, ab=a.T @ b, bb=b.square().sum())
        self.sums = {name: value + self.sums.get(name, 0) for name, value in new.items()}
        self.count += len(a)

    def cost(self) -> float:
        """Returns the cost, in [0, 1]; 0 where F_B is constant.

        Raises:
            ValueError: Nothing was added.
        """
        if not self.count:
            raise ValueError('no features were added')
        a, b = (self.sums[name] / self.count for name in 'ab')
        variance = (self.sums['aa'] / self.count) - torch.outer(a, a)
        covariance = (self.sums['ab'] / self.count) - torch.outer(a, b)
        total = (self.sums['bb'] / self.count - b.square().sum()).clamp(min=0)
        if total <= 1e-12 * (self.sums['bb'] / self.count):
            return 0.0
        level = variance.diagonal().mean().clamp(min=1e-30)
        ridge = self.ridge * level * torch.eye(len(a), dtype=a.dtype, device=a.device)
        weight = torch.linalg.solve(variance + ridge, covariance)
        left = total - 2 * (weight * covariance).sum() + (weight * (variance @ weight)).sum()
        return float((left / total).clamp(0, 1))


def adaptation_cost(source: Tensor, target: Tensor) -> float:
    """Returns :meth:`AffineSums.cost` of one batch of features."""
    sums = AffineSums()
    sums.add(source, target)
    return sums.cost()
