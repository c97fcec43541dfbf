"""The light assistant of ResidualKD."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Optional, Union

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmrkd.models.backbones import ComputeCost, ResidualSum, measure
from mmrkd.registry import MODELS
from mmrkd.structures import Features


@MODELS.register_module()
class ResidualAssistantNeck(BaseModule):
    """Adds what a small network makes of the student's features to them (arXiv 2002.09168).

    .. code:: text

        feats ── inner neck ── F_S ──┬───────────────────────────────────────┐
                                     │                                       + ── F = F_S + F_A
                                     └── 1x1 ── 3x3, ReLU (times n) ── 1x1 ──┘
                                                                     F_A

    The paper derives student and assistant from one model, so that nothing gets more expensive:
    :class:`mmrkd.models.backbones.ResidualPairBackbone`. This one leaves the backbone as it is (pretrained, perhaps)
    and costs something: :meth:`cost` says how much. It is ours, and so are its layers: all levels share them, the first
    reduces the width, the last has neither norm nor activation, since a residual has both signs.

    Gradient contract: the assistant reads detached features while training, so that no loss on F_A, and no loss on F
    through F_A, trains the student. The student gets the gradient of F through the sum.

    Args:
        in_channels: Width of the features, in and out.
        neck: Config of a neck that makes them (an FPN). ``None`` reads what comes in.
        num_levels: Number of levels. Defaults to 1.
        num_convs: n >= 1; ``0`` builds the student's part alone, to which the weights of the whole fit.
        mid_channels: Width of the assistant. Defaults to a quarter of ``in_channels``.
        vectors: Whether features are vectors ``(N, C)``: linear layers in place of the convolutions.
        detach: Whether the assistant reads detached features. Defaults to True.
        init_cfg: See :class:`mmengine.model.BaseModule`.
    """

    def __init__(
        self,
        in_channels: int,
        neck: Optional[dict] = None,
        num_levels: int = 1,
        num_convs: int = 1,
        mid_channels: Optional[int] = None,
        vectors: bool = False,
        detach: bool = True,
        init_cfg: Optional[Union[dict, list[dict]]] = None,
    ) -> None:
        super().__init__(init_cfg)
        if num_convs < 0:
            raise ValueError(f'num_convs must be at least 0, found {num_convs}')
        self.in_channels, self.vectors, self.detach = in_channels, vectors, detach
        self.neck = None if neck is None else MODELS.build(neck)
        self.sums = nn.ModuleDict({str(level): ResidualSum() for level in range(num_levels)})
        width = mid_channels or max(1, in_channels // 4)
        self.assistant = _stack(in_channels, width, num_convs, vectors) if num_convs else None
        self.assisted = self.assistant is not None

    def forward(self, feats: Sequence[Tensor]) -> Features:
        """Returns F of each level, in the shapes of F_S."""
        feats = feats if self.neck is None else self.neck(feats)
        if len(feats) != len(self.sums):
            raise ValueError(f'expected features of {len(self.sums)} levels (num_levels), found {len(feats)}')
        if not self.assisted:
            return tuple(add(f) for add, f in zip(self.sums.values(), feats))
        return tuple(
            add(f, self.assistant(f.detach() if self.detach else f)) for add, f in zip(self.sums.values(), feats)
        )

    @contextmanager
    def unassisted(self) -> Iterator[None]:
        """Gives F_S alone inside one ``with`` block."""
        before, self.assisted = self.assisted, False
        try:
            yield
        finally:
            self.assisted = before

    def assistant_modules(self) -> list[nn.Module]:
        """What the assistant consists of. All else of the neck is the student's."""
        return [] if self.assistant is None else [self.assistant]

    def cost(self, sizes: Sequence[tuple[int, int]]) -> ComputeCost:
        """What the assistant adds to the student's parameters and operations.

        Args:
            sizes: ``(H_l, W_l)`` of each level; for vectors ``(1, 1)``.
        """
        if self.assistant is None:
            return ComputeCost(0, 0)
        zeros = next(self.assistant.parameters()).new_zeros
        shapes = [(1, self.in_channels) if self.vectors else (1, self.in_channels, *size) for size in sizes]
        costs = [measure(self.assistant, zeros(shape)) for shape in shapes]
        return ComputeCost(costs[0].params, sum(cost.flops for cost in costs))


def _stack(channels: int, width: int, num_convs: int, vectors: bool) -> nn.Sequential:
    if vectors:
        hidden = [layer for _ in range(num_convs) for layer in (nn.Linear(width, width), nn.ReLU())]
        return nn.Sequential(nn.Linear(channels, width), nn.ReLU(), *hidden, nn.Linear(width, channels))
    hidden = [ConvModule(width, width, 3, padding=1) for _ in range(num_convs)]
    return nn.Sequential(ConvModule(channels, width, 1), *hidden, nn.Conv2d(width, channels, 1))
