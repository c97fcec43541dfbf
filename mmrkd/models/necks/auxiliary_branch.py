"""A short way from a shallow stage of a classifier to a prediction, for the training alone."""

from mmengine.model import BaseModule
from torch import Tensor, nn


class AuxiliaryBranch(BaseModule):
    """Brings a map to the resolution and width of a teacher's last one, and classifies it.

    .. code:: text

        f ── [3x3 conv, stride 2, BN, ReLU] x halvings ── 1x1 conv ── map ── global average ── linear ── logits

    Channels double with each halving, up to the teacher's. Convolutions start as Kaiming et al. propose, the linear
    layer from N(0, 0.01).

    Args:
        in_channels: Of f.
        out_channels: Of the teacher's map.
        halvings: How often the resolution is halved.
        num_classes: Number of classes.
    """

    def __init__(self, in_channels: int, out_channels: int, halvings: int, num_classes: int) -> None:
        kaiming = dict(type='Kaiming', layer='Conv2d')
        super().__init__([kaiming, dict(type='Normal', layer='Linear', std=0.01)])
        layers: list[nn.Module] = []
        for _ in range(halvings):
            wider = max(in_channels, min(2 * in_channels, out_channels))
            layers += [nn.Conv2d(in_channels, wider, 3, 2, 1, bias=False), nn.BatchNorm2d(wider), nn.ReLU()]
            in_channels = wider
        self.reduction = nn.Sequential(*layers)
        self.map = nn.Conv2d(in_channels, out_channels, 1)
        self.fc = nn.Linear(out_channels, num_classes)

    def forward(self, feat: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the map ``(N, C_t, H', W')``, before any activation, and logits ``(N, K)``."""
        mapped = self.map(self.reduction(feat))
        return mapped, self.fc(mapped.mean(dim=(2, 3)))
