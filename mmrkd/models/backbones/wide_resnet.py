"""Wide residual networks for 32 x 32 images, the CIFAR pairs of SemiOnlineKD and of much other work on distillation."""

from collections.abc import Sequence
from typing import Optional

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmrkd.registry import MODELS


class _PreActivationBlock(BaseModule):
    """``[BN, ReLU, conv] x 2`` beside a shortcut, which branches off behind the first ReLU where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(N, out_channels, H / stride, W / stride)``."""
        active = self.bn1(x).relu()
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return shortcut + self.conv2(self.bn2(self.conv1(active)).relu())


@MODELS.register_module()
class WideResNet(BaseModule):
    """WRN-d-k (arXiv 1605.07146) without dropout; mmpretrain has wide ResNets for ImageNet alone.

    Args:
        depth: d = 6 n + 4, n blocks in each of the three stages.
        widen_factor: k; the stages have 16 k, 32 k and 64 k channels.
        out_indices: Stages to return, of 0 .. 2 with strides 1, 2, 4. Defaults to the last, ``(2, )``, which alone ends
            with BN and ReLU.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        ValueError: No such depth, or an index is not a stage.
    """

    def __init__(
        self,
        depth: int = 40,
        widen_factor: int = 2,
        out_indices: Sequence[int] = (2,),
        init_cfg: Optional[Sequence[dict]] = (
            dict(type='Kaiming', layer='Conv2d'),
            dict(type='Constant', val=1, layer='_BatchNorm'),
        ),
    ) -> None:
        super().__init__(list(init_cfg) if isinstance(init_cfg, tuple) else init_cfg)
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f'depth must be 6 n + 4 (10, 16, 22, 28, 40, ...), found {depth}')
        if not set(out_indices) <= {0, 1, 2}:
            raise ValueError(f'out_indices must be in 0 .. 2, found {tuple(out_indices)}')
        self.out_indices = tuple(out_indices)
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        channels = 16
        for stage in range(3):
            blocks = []
            for index in range((depth - 4) // 6):
                width = 16 * widen_factor * 2**stage
                blocks.append(_PreActivationBlock(channels, width, stride=2 if stage and index == 0 else 1))
                channels = width
            self.add_module(f'layer{stage + 1}', nn.Sequential(*blocks))
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Returns the stages ``out_indices`` of images ``(N, 3, H, W)``."""
        x = self.conv1(x)
        stages = []
        for layer in (self.layer1, self.layer2, self.layer3):
            x = layer(x)
            stages.append(x)
        stages[-1] = self.bn(x).relu()
        return tuple(stages[index] for index in self.out_indices)
