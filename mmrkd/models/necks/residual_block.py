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

    With a ``bottleneck`` of b the layer is a narrow one, ``[1x1 C -> C/b, act, kxk, act, 1x1 C/b -> C]`` (of vectors
    ``[C -> C/b, act, C/b -> C]``): for b = 4 and k = 3 a seventh of the arithmetic. This is ours.

    A single vector has no variance. A BatchNorm in training normalises a batch of one (the last one of an epoch, as
    mmengine's loader keeps it) by its running statistics and leaves these as they are; the gradient is that of an
    affine map. So the batch trains the branches like any other. This is ours.

    Args:
        channels: Width C.
        kernel_size: ``None`` for vectors ``(N, C)`` (Linear), an odd number for maps (convolution).
        norm: One of ``NORMS``.
        act: Key of ``ACTIVATIONS``, or ``None`` for no activation at the end.
        num_norms: 1, or the number of levels if each level has statistics of its own.
        bottleneck: How much narrower the layer is inside. Defaults to 1: it is a single layer.
        inner_act: Key of ``ACTIVATIONS`` for the inside of a bottleneck. Defaults to ``'relu'``.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: Optional[int],
        norm: str,
        act: Optional[str],
        num_norms: int,
        bottleneck: int = 1,
        inner_act: str = 'relu',
    ) -> None:
        super().__init__()
        if bottleneck == 1:
            self.layer = _layer(channels, channels, kernel_size)
        else:
            self.layer = _bottleneck(channels, max(1, channels // bottleneck), kernel_size, inner_act)
        self.norms = nn.ModuleList(_norm(norm, channels, kernel_size) for _ in range(num_norms))
        self.act = nn.Identity() if act is None else ACTIVATIONS[act]()

    @property
    def last_layer(self) -> nn.Module:
        """The layer before the norm: the only one, or the one that widens a bottleneck again."""
        return self.layer[-1] if isinstance(self.layer, nn.Sequential) else self.layer

    def forward(self, x: Tensor, level: int = 0) -> Tensor:
        """Returns a tensor of the shape of ``x``."""
        x, norm = self.layer(x), self.norms[level if len(self.norms) > 1 else 0]
        return self.act(_by_running_statistics(norm, x) if _has_no_variance(norm, x) else norm(x))


def _layer(width: int, out: int, kernel_size: Optional[int]) -> nn.Module:
    if kernel_size is None:
        return nn.Linear(width, out)
    return nn.Conv2d(width, out, kernel_size, padding=kernel_size // 2)


def _bottleneck(channels: int, inner: int, kernel_size: Optional[int], act: str) -> nn.Sequential:
    pointwise = None if kernel_size is None else 1
    parts = [_layer(channels, inner, pointwise), ACTIVATIONS[act]()]
    if kernel_size not in (None, 1):
        parts += [_layer(inner, inner, kernel_size), ACTIVATIONS[act]()]
    return nn.Sequential(*parts, _layer(inner, channels, pointwise))


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
