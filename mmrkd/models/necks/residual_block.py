"""The block that the branches of MBRNet are made of."""

import math
from typing import Optional

import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.dist import get_world_size
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

ACTIVATIONS = {'relu': nn.ReLU, 'mish': nn.Mish, 'prelu': nn.PReLU, 'gelu': nn.GELU, 'leaky_relu': nn.LeakyReLU}
NORMS = ('BN', 'LN', 'GN', 'SyncBN')


class ResidualBlock(BaseModule):
    """``[Linear | Conv, norm, activation]`` of constant width, shared by all levels.

    A single vector has no variance. A BatchNorm in training normalises a batch of one (the last one of an epoch, as
    mmengine's loader keeps it) by its running statistics and leaves these as they are; the gradient is that of an
    affine map. So the batch trains the branches like any other. This is ours.

    Args:
        channels: Width C.
        kernel_size: ``None`` for vectors ``(N, C)`` (Linear), an odd number for maps (convolution).
        norm: One of ``NORMS``.
        act: Key of ``ACTIVATIONS``, or ``None`` for no activation.
        num_norms: 1, or the number of levels if each level has statistics of its own.
    """

    def __init__(
        self, channels: int, kernel_size: Optional[int], norm: str, act: Optional[str], num_norms: int
    ) -> None:
        super().__init__()
        self.layer = _layer(channels, kernel_size)
        self.norms = nn.ModuleList(_norm(norm, channels, kernel_size) for _ in range(num_norms))
        self.act = nn.Identity() if act is None else ACTIVATIONS[act]()

    def forward(self, x: Tensor, level: int = 0) -> Tensor:
        """Returns a tensor of the shape of ``x``."""
        x, norm = self.layer(x), self.norms[level if len(self.norms) > 1 else 0]
        return self.act(_by_running_statistics(norm, x) if _has_no_variance(norm, x) else norm(x))


def _layer(channels: int, kernel_size: Optional[int]) -> nn.Module:
    if kernel_size is None:
        return nn.Linear(channels, channels)
    return nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2)


class _ChannelsFirstLayerNorm(nn.GroupNorm):
    """LayerNorm of a map: over channels and positions, with an affine factor for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)


def _norm(norm: str, channels: int, kernel_size: Optional[int]) -> nn.Module:
    if norm == 'GN':
        # Groups of 8 channels or more: with one channel a group it would be InstanceNorm and lose the magnitudes.
        return nn.GroupNorm(math.gcd(math.gcd(32, max(1, channels // 8)), channels), channels)
    if norm == 'LN':
        return nn.LayerNorm(channels) if kernel_size is None else _ChannelsFirstLayerNorm(channels)
    kind: dict[str, str] = {'BN': 'BN1d' if kernel_size is None else 'BN2d', 'SyncBN': 'SyncBN'}
    return build_norm_layer(dict(type=kind[norm], momentum=0.01), channels)[1]


def _has_no_variance(norm: nn.Module, x: Tensor) -> bool:
    """Whether a BatchNorm in training would be given one value for each channel, by all processes that it asks."""
    if not (isinstance(norm, _BatchNorm) and norm.training and x.numel() == x.shape[1]):
        return False
    return not isinstance(norm, nn.SyncBatchNorm) or get_world_size() == 1


def _by_running_statistics(norm: _BatchNorm, x: Tensor) -> Tensor:
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps)
