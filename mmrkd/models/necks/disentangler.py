"""Parts the features of a model into what matters for a task and the rest."""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

PARTS = ('gate', 'two')
OPEN = 2.0  # sigmoid(2) is 0.88


class Disentangler(BaseModule):
    """Parts a map f into f+ and f-, for :class:`mmrkd.models.methods.TRED`.

    .. code:: text

        'gate'    g = sigmoid(net(f)), f+ = g f, f- = (1 - g) f: the parts add up to f
        'two'     f+ = net(f), f- = another net(f)

    A net is a 1x1 convolution to a quarter of the channels, a ReLU and a 1x1 convolution back.

    Args:
        channels: C.
        parts: ``'gate'`` or ``'two'``. Defaults to ``'gate'``; it starts at about 0.88 everywhere.
    """

    def __init__(self, channels: int, parts: str = 'gate') -> None:
        super().__init__()
        self.parts = parts
        self.relevant = _net(channels)
        self.rest = _net(channels) if parts == 'two' else None
        if parts == 'gate':
            nn.init.constant_(self.relevant[-1].bias, OPEN)

    def gate(self, feat: Tensor) -> Tensor:
        """Returns g, ``(N, C, H, W)`` in (0, 1)."""
        return torch.sigmoid(self.relevant(feat))

    def forward(self, feat: Tensor) -> tuple[Tensor, Tensor]:
        """Returns f+ and f- of ``(N, C, H, W)``, of the same shape."""
        if self.rest is not None:
            return self.relevant(feat), self.rest(feat)
        gate = self.gate(feat)
        return gate * feat, (1 - gate) * feat


def _net(channels: int) -> nn.Sequential:
    hidden = max(1, channels // 4)
    return nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1))
