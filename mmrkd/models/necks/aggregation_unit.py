"""What says how the maps of several branches are mixed."""

from collections.abc import Sequence
from math import gcd
from typing import Literal

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn


class AggregationUnit(BaseModule):
    """Feature aggregation unit (FAU) of OKDHP (arXiv 2108.02092): looks at a map and scores branches.

    .. code:: text

            +-- conv 3x3 -- norm, ReLU --+
        x --+-- conv 5x5 -- norm, ReLU --+-- sum -- average over h, w -- C -> squeeze -> B x K
            +-- conv 7x7 -- norm, ReLU --+

    There is no activation in the squeeze, as released. What K stands for is the caller's: joints there, classes of
    segmentation here.

    Args:
        in_channels: C.
        num_branches: B.
        num_maps: K.
        kernels: Sizes of the convolutions, odd. Defaults to (3, 5, 7).
        squeeze: Width between the two linear layers. Defaults to 64.
        norm: ``'BN'``, as released, or ``'GN'`` for batches of a few images (ours). Defaults to ``'BN'``.

    Raises:
        ValueError: A size is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        num_branches: int,
        num_maps: int,
        kernels: Sequence[int] = (3, 5, 7),
        squeeze: int = 64,
        norm: Literal['BN', 'GN'] = 'BN',
    ) -> None:
        super().__init__()
        if not kernels or any(kernel < 1 or kernel % 2 == 0 for kernel in kernels) or squeeze < 1:
            raise ValueError(f'expected odd kernels and squeeze >= 1, found {tuple(kernels)} and {squeeze}')
        if norm not in ('BN', 'GN'):
            raise ValueError(f"norm must be 'BN' or 'GN', found {norm!r}")
        self.num_branches, self.num_maps = num_branches, num_maps
        self.convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(in_channels, in_channels, k, padding=k // 2), _norm(norm, in_channels), nn.ReLU())
            for k in kernels
        )
        self.squeeze = nn.Linear(in_channels, squeeze)
        self.score = nn.Linear(squeeze, num_branches * num_maps)

    def forward(self, x: Tensor) -> Tensor:
        """Returns scores ``(N, B, K)`` of a map ``(N, C, h, w)``; their softmax over B are shares."""
        pooled = torch.stack([conv(x) for conv in self.convs]).sum(dim=0).mean(dim=(2, 3))
        return self.score(self.squeeze(pooled)).unflatten(1, (self.num_branches, self.num_maps))


def _norm(kind: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if kind == 'BN' else nn.GroupNorm(gcd(32, channels), channels)
