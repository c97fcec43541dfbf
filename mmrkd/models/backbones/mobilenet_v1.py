"""MobileNet-V1, the student of the ResNet-50 -> MobileNet recipe of ERA."""

from collections.abc import Sequence
from typing import Optional

from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmrkd.registry import MODELS

# Output channels at width 1 and stride of each depthwise separable block, grouped by resolution (arXiv 1704.04861).
STAGES = (
    ((64, 1),),
    ((128, 2), (128, 1)),
    ((256, 2), (256, 1)),
    ((512, 2), *(((512, 1),) * 5)),
    ((1024, 2), (1024, 1)),
)


@MODELS.register_module()
class MobileNetV1(BaseModule):
    """MobileNet-V1 (arXiv 1704.04861), which mmpretrain lacks.

    Args:
        widen_factor: Multiplier of all channels. Defaults to 1.
        out_indices: Stages to return, of 0 .. 4 with strides 2, 4, 8, 16, 32. Defaults to the last, ``(4, )``.
        norm_cfg: Norm layers. Defaults to ``dict(type='BN')``.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        ValueError: An index is not a stage.
    """

    def __init__(
        self,
        widen_factor: float = 1.0,
        out_indices: Sequence[int] = (4,),
        norm_cfg: Optional[dict] = None,
        init_cfg: Optional[Sequence[dict]] = (
            dict(type='Kaiming', layer='Conv2d'),
            dict(type='Constant', val=1, layer='_BatchNorm'),
        ),
    ) -> None:
        super().__init__(list(init_cfg) if isinstance(init_cfg, tuple) else init_cfg)
        if not set(out_indices) <= set(range(len(STAGES))):
            raise ValueError(f'out_indices must be in 0 .. {len(STAGES) - 1}, found {tuple(out_indices)}')
        self.out_indices = tuple(out_indices)
        norm_cfg = norm_cfg or dict(type='BN')

        def width(channels: int) -> int:
            return max(8, int(channels * widen_factor))

        channels = width(32)
        self.stem = ConvModule(3, channels, 3, stride=2, padding=1, norm_cfg=norm_cfg)
        self.stages = nn.ModuleList()
        for blocks in STAGES:
            layers = []
            for out_channels, stride in blocks:
                layers.append(
                    DepthwiseSeparableConvModule(
                        channels, width(out_channels), 3, stride=stride, padding=1, norm_cfg=norm_cfg
                    )
                )
                channels = width(out_channels)
            self.stages.append(nn.Sequential(*layers))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Returns the stages ``out_indices`` of images ``(N, 3, H, W)``."""
        x = self.stem(x)
        outputs = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.out_indices:
                outputs.append(x)
        return tuple(outputs)
