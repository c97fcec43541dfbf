"""From the student's width to the teacher's, for the training alone."""

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmrkd.structures import Features


class Projection(BaseModule):
    """One linear layer (a 1x1 convolution on maps) for each pair of widths that occurs among the levels.

    Levels of equal widths share it, as they share the weights of a dense head, unless ``per_level``. Gradients flow
    through it into the student. It is dropped at inference.

    Args:
        in_channels: Width of each of the student's levels.
        out_channels: Width of each of the teacher's levels.
        vectors: Whether features are vectors ``(N, C)`` and not maps ``(N, C, H, W)``.
        per_level: Whether each level has a layer of its own.
        always: Whether there is a layer where the widths agree, too; otherwise such a level is passed on as it is.

    Raises:
        ValueError: The numbers of levels differ.

    Examples:
        >>> import torch
        >>> projection = Projection([16, 16, 32], [64, 64, 64])
        >>> maps = [torch.rand(2, c, s, s) for c, s in ((16, 8), (16, 4), (32, 2))]
        >>> [f.shape[1] for f in projection(maps)], len(projection.layers)
        ([64, 64, 64], 2)
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: Sequence[int],
        vectors: bool = False,
        per_level: bool = False,
        always: bool = True,
    ) -> None:
        super().__init__()
        if len(in_channels) != len(out_channels):
            raise ValueError(f'expected as many widths out as in, found {list(in_channels)} and {list(out_channels)}')
        widths = list(zip(in_channels, out_channels))
        groups = widths if per_level else sorted(set(widths))
        self.index = list(range(len(widths))) if per_level else [groups.index(width) for width in widths]
        self.layers = nn.ModuleList(
            pointwise(*width, vectors) if always or width[0] != width[1] else nn.Identity() for width in groups
        )

    def forward(self, feats: Sequence[Tensor]) -> Features:
        """Returns the features of each level in the teacher's width."""
        return tuple(self.layers[i](f) for i, f in zip(self.index, feats))


def pointwise(in_channels: int, out_channels: int, vectors: bool = False) -> nn.Module:
    """Returns the layer that changes the width and nothing else: linear, or a 1x1 convolution on maps."""
    return nn.Linear(in_channels, out_channels) if vectors else nn.Conv2d(in_channels, out_channels, 1)


def linear_part(layer: nn.Module, feat: Tensor) -> Tensor:
    """Applies such a layer without its bias and without training it: the weight is detached."""
    if isinstance(layer, nn.Identity):
        return feat
    weight = layer.weight.detach()
    return nn.functional.linear(feat, weight) if feat.dim() == 2 else nn.functional.conv2d(feat, weight)
