"""Adds to each position what the whole image says."""

import torch
from mmengine.model import BaseModule, constant_init, kaiming_init
from torch import Tensor, nn


class GlobalContext(BaseModule):
    r"""Global context block of GcNet, as FGD compares relations with (arXiv 2111.11837, Eq. 10), for one level.

    .. math:: R(f) = f + W_2 \, \mathrm{ReLU}(\mathrm{LN}(W_1 \sum_p \mathrm{softmax}_p(k \cdot f)_p \, f_p))

    .. code:: text

        f (N, C, H, W) ─┬─ k: conv1x1 to 1 ── softmax over positions ─┐
                        ├──────────── weighted sum over positions ────┴─ W1 ── LN ── ReLU ── W2 ─┐
                        └────────────────────────────────────────────────────────────────────────+── (N, C, H, W)

    :math:`W_2` begins at 0, weight and bias: R begins as the identity. k is drawn with kaiming (fan in).
    The block is dropped at inference.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 2, 1)
        self.position = nn.Conv2d(channels, 1, 1)
        self.transform = nn.Sequential(
            nn.Conv2d(channels, inner, 1),
            nn.LayerNorm([inner, 1, 1]),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, channels, 1),
        )
        kaiming_init(self.position, mode='fan_in')
        constant_init(self.transform[3], 0)

    def forward(self, feat: Tensor) -> Tensor:
        """Returns ``feat`` with its context added."""
        weights = self.position(feat).flatten(2).softmax(dim=2)  # (N, 1, H W)
        context = torch.bmm(feat.flatten(2), weights.transpose(1, 2)).unsqueeze(3)  # (N, C, 1, 1)
        return feat + self.transform(context)
