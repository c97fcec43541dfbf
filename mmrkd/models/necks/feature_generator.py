"""Regenerates a feature from what is left of it."""

from typing import Literal

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn


class FeatureGenerator(BaseModule):
    """Two convolutions that make a whole map out of one with holes (MGD, arXiv 2205.01529), for one level.

    .. code:: text

        x (N, C, H, W) ── hide ── conv3x3 ── ReLU ── conv3x3 ── (N, C, H, W)

    Gradients flow through it into what was kept. It is dropped at inference.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, feat: Tensor, keep: Tensor) -> Tensor:
        """Returns the generated map.

        Args:
            feat: ``(N, C, H, W)``.
            keep: 1 where it is seen and 0 where it is hidden, ``(N, 1, H, W)`` or ``(N, C, 1, 1)``. What is seen is not
                rescaled.
        """
        return self.layers(feat * keep.to(feat))


def draw_kept(feat: Tensor, ratio: float, hidden: Literal['cells', 'channels']) -> Tensor:
    """Draws what is kept of a map ``(N, C, H, W)``, anew for each image.

    The random numbers come from torch's generator of the map's device, whose state a resumed run finds again.

    Args:
        feat: The map.
        ratio: Probability of being hidden.
        hidden: ``'cells'``: ``(N, 1, H, W)``; ``'channels'``: ``(N, C, 1, 1)``.

    Returns:
        1 where it is kept, 0 where it is hidden.
    """
    n, c, height, width = feat.shape
    shape = (n, 1, height, width) if hidden == 'cells' else (n, c, 1, 1)
    return (torch.rand(shape, device=feat.device) >= ratio).to(feat)
