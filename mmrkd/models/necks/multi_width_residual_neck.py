"""MBRNet for levels of unequal width."""

from collections.abc import Sequence
from typing import Any, Optional, Union

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmrkd.models.necks.channel_standardizer import ChannelStandardizer
from mmrkd.models.necks.multi_branch_residual_neck import MultiBranchResidualNeck
from mmrkd.registry import MODELS
from mmrkd.structures import Features


@MODELS.register_module()
class MultiWidthResidualNeck(BaseModule):
    """One :class:`MultiBranchResidualNeck` for each pair of widths (C_s, C_t) that occurs among the levels.

    .. code:: text

        level 0: 256 -> 512 ──┬── MBRNet 256 -> 512
        level 1: 256 -> 512 ──┘
        level 2: 512 -> 512 ───── MBRNet 512 -> 512

    Levels of equal widths share their weights, as they do in a neck of one width (FPN); the levels of SSD, YOLOv3 or of
    a backbone differ, and there nothing can be shared. Methods, arguments and gradient contract are those of the neck
    for one width.

    Args:
        in_channels: Width C_s of each of the student's levels.
        out_channels: Width C_t of each of the teacher's levels.
        num_levels: Number of levels.
        standardize: See :class:`MultiBranchResidualNeck`.
        init_cfg: See :class:`mmengine.model.BaseModule`.
        **kwargs: More arguments of :class:`MultiBranchResidualNeck`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: Sequence[int],
        num_levels: int,
        standardize: bool = False,
        init_cfg: Optional[Union[dict, list[dict]]] = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(init_cfg)
        if not len(in_channels) == len(out_channels) == num_levels:
            raise ValueError(f'expected {num_levels} widths, found in_channels {in_channels}, out {out_channels}')
        groups: dict[tuple[int, int], list[int]] = {}
        for level, widths in enumerate(zip(in_channels, out_channels)):
            groups.setdefault(widths, []).append(level)
        self.groups, self.num_levels = list(groups.values()), num_levels
        self.necks = nn.ModuleList(
            MultiBranchResidualNeck(*widths, num_levels=len(levels), **kwargs) for widths, levels in groups.items()
        )
        self.standardizer = ChannelStandardizer(out_channels) if standardize else None

    @property
    def projection(self) -> nn.ModuleList:
        """The projections P, one for each pair of widths."""
        return nn.ModuleList(neck.projection for neck in self.necks)

    def silence(self, first: int) -> None:
        """Makes the branches from number ``first`` on return 0, see :meth:`MultiBranchResidualNeck.silence`."""
        for neck in self.necks:
            neck.silence(first)

    def parameters_from(self, first: int) -> list[nn.Parameter]:
        """Returns the parameters that only the branches from number ``first`` on have."""
        return [parameter for neck in self.necks for parameter in neck.parameters_from(first)]

    def steps(
        self, feats: Sequence[Tensor], detach_branches: bool = False, num_branches: Optional[int] = None
    ) -> tuple[Features, list[Features]]:
        """Computes ``h_0`` and ``[D_1, ..., D_N]``, see :meth:`MultiBranchResidualNeck.steps`."""
        if len(feats) != self.num_levels:
            raise ValueError(f'expected features of {self.num_levels} levels, found {len(feats)}')
        parts = [
            neck.steps([feats[i] for i in group], detach_branches, num_branches)
            for neck, group in zip(self.necks, self.groups)
        ]
        initial = self._in_order([h for h, _ in parts])
        return initial, [self._in_order(d) for d in zip(*(increments for _, increments in parts))]

    def forward(self, feats: Sequence[Tensor]) -> Features:
        """Returns ``h_N`` of each level, on the scale of the teacher's features."""
        initial, increments = self.steps(feats)
        return self.to_teacher_scale(tuple(sum(parts, h) for h, *parts in zip(initial, *increments)))

    def to_teacher_scale(self, estimates: Sequence[Tensor]) -> Features:
        """Returns estimates ``h_i`` as features that the teacher's head knows."""
        return tuple(estimates) if self.standardizer is None else self.standardizer.denormalize(estimates)

    def _in_order(self, grouped: Sequence[Sequence[Tensor]]) -> Features:
        by_level = {level: f for levels, feats in zip(self.groups, grouped) for level, f in zip(levels, feats)}
        return tuple(by_level[level] for level in range(self.num_levels))
