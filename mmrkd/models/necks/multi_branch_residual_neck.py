"""MBRNet of ERA: the gap between student and teacher features, approximated in small steps."""

from collections.abc import Sequence
from typing import Optional, Union

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmrkd.models.necks.channel_standardizer import ChannelStandardizer
from mmrkd.models.necks.projection import pointwise
from mmrkd.models.necks.residual_block import ACTIVATIONS, NORMS, ResidualBlock
from mmrkd.registry import MODELS
from mmrkd.structures import Features

WIRINGS = ('parallel', 'accumulate', 'cascade', 'mix')


@MODELS.register_module()
class MultiBranchResidualNeck(BaseModule):
    """Multi-branch residual network (MBRNet) of ERA, with the projection P (arXiv 2508.16050).

    .. code:: text

        f_s ──┬── P ──────────────────────────── h_0
              ├── branch 1: B blocks ── close ── D_1     h_1 = h_0 + D_1
              ├── branch 2: B blocks ── close ── D_2     h_2 = h_1 + D_2
              └── ...                                    ...
              └── branch N: B blocks ── close ── D_N     h_N = h_{N-1} + D_N

    Each branch has B blocks of the student's width: ``[layer, norm, act]``, the last one without the activation. If the
    widths differ a 1x1 layer closes the branch. ``wiring`` says what branch i reads, ``o_j`` being the output of branch
    j before its closing layer:

    - ``'parallel'``: ``f_s`` (the recipe that the authors released).
    - ``'accumulate'``: ``f_s + o_1 + ... + o_{i-1}``.
    - ``'cascade'``: ``o_{i-1}`` (``f_s`` for the first).
    - ``'mix'``: ``alpha_i * f_s + sum_j beta_ij * o_j`` with learnt factors for each channel (alpha starts at 1, beta
      at 0, so that it starts as ``'parallel'``).

    As a neck, :meth:`forward` returns ``h_N``: put behind the student's neck and before the teacher's head it makes the
    *integrated* model. :meth:`steps` gives the parts for training. Gradients flow through everything.

    Ours, where the paper does not say: convolutions for feature maps are shared by all levels, GN is their default
    norm, P keeps torch's own initialisation. Branch layers start from N(0, 0.01), their biases at 0; what lies inside a
    bottleneck keeps torch's own initialisation.

    Args:
        in_channels: Width C_s of the student's levels; one number, or a list of equal numbers.
        out_channels: Width C_t of the teacher's levels.
        num_levels: Number of levels. Defaults to 1.
        num_branches: N >= 1. Defaults to 4.
        num_blocks: B >= 1, or one number for each branch. Defaults to 2.
        kernel_size: ``None`` for vectors (linear layers), 1 or 3 for maps, or one number for each block of a branch:
            ``(3, 1)`` sees as far as ``(3, 3)`` does in its first block, for half of the arithmetic. Defaults to None.
        wiring: See above. Defaults to ``'parallel'``.
        act: relu | mish | prelu | gelu | leaky_relu. Defaults to ``'relu'``.
        norm: BN | LN | GN | SyncBN; ``None`` takes BN (momentum 0.01) for vectors and GN for maps.
        norm_per_level: Whether each level has its own norm layers. Defaults to False.
        shared_blocks: The first so many blocks are the same modules in all branches. Defaults to 0.
        shared_close: Whether all branches share one closing layer. Defaults to False.
        standardize: Whether ``h`` and ``D`` live in units of the teacher's per-channel standard deviation, see
            :class:`ChannelStandardizer`. Defaults to False.
        bottleneck: How much narrower the layers are inside a block, see
            :class:`~mmrkd.models.necks.residual_block.ResidualBlock`. Defaults to 1: as wide as the student.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        ValueError: An argument is out of range; the message says which and what is allowed.

    Examples:
        >>> neck = MultiBranchResidualNeck(16, 64, num_levels=3, kernel_size=3)
        >>> maps = [torch.rand(2, 16, s, s) for s in (40, 20, 10)]
        >>> [h.shape for h in neck(maps)]
        [torch.Size([2, 64, 40, 40]), torch.Size([2, 64, 20, 20]), torch.Size([2, 64, 10, 10])]
    """

    def __init__(
        self,
        in_channels: Union[int, Sequence[int]],
        out_channels: Union[int, Sequence[int]],
        num_levels: int = 1,
        num_branches: int = 4,
        num_blocks: Union[int, Sequence[int]] = 2,
        kernel_size: Optional[Union[int, Sequence[int]]] = None,
        wiring: str = 'parallel',
        act: str = 'relu',
        norm: Optional[str] = None,
        norm_per_level: bool = False,
        shared_blocks: int = 0,
        shared_close: bool = False,
        standardize: bool = False,
        bottleneck: int = 1,
        init_cfg: Optional[Union[dict, list[dict]]] = None,
    ) -> None:
        super().__init__(init_cfg)
        in_channels, out_channels = _one_width('in', in_channels), _one_width('out', out_channels)
        depths = [num_blocks] * num_branches if isinstance(num_blocks, int) else list(num_blocks)
        norm = norm or ('BN' if kernel_size is None else 'GN')
        kernels = list(kernel_size) if isinstance(kernel_size, Sequence) else [kernel_size] * max(depths, default=1)
        _check(num_branches, depths, kernels, wiring, act, norm, shared_blocks, bottleneck)
        self.num_branches, self.wiring, self.num_levels = num_branches, wiring, num_levels
        self.projection = pointwise(in_channels, out_channels, kernel_size is None)

        def block(index: int, last: bool) -> ResidualBlock:
            num_norms = num_levels if norm_per_level else 1
            return ResidualBlock(
                in_channels, kernels[index], norm, None if last else act, num_norms, bottleneck, inner_act=act
            )

        common = [block(i, last=False) for i in range(shared_blocks)]
        self.branches = nn.ModuleList(
            nn.ModuleList(common + [block(i, last=i == depth - 1) for i in range(shared_blocks, depth)])
            for depth in depths
        )
        self.closes = nn.ModuleList()
        if in_channels != out_channels:
            for _ in range(1 if shared_close else num_branches):
                self.closes.append(pointwise(in_channels, out_channels, kernel_size is None))
        if wiring == 'mix':
            self.alpha = nn.Parameter(torch.ones(num_branches, in_channels))
            if num_branches > 1:  # a parameter that nothing uses would stop DDP
                self.beta = nn.Parameter(torch.zeros(num_branches, num_branches, in_channels))
        self.standardizer = ChannelStandardizer([out_channels] * num_levels) if standardize else None

    def init_weights(self) -> None:
        """Draws branch layers from N(0, 0.01) and zeroes their biases; P and norms keep torch's defaults."""
        super().init_weights()
        layers = [block.last_layer for blocks in self.branches for block in blocks]  # a shared one in each branch
        for layer in dict.fromkeys([*layers, *self.closes]):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def silence(self, first: int) -> None:
        """Makes the branches from number ``first`` (counted from 0) on return exactly 0, but able to learn.

        Raises:
            ValueError: They share their closing layer with the others, so that it cannot be zeroed.
        """
        if self.closes and len(self.closes) < self.num_branches:
            raise ValueError('branches that begin with an output of 0 need closing layers of their own: shared_close')
        for index in range(first, self.num_branches):
            last = [self.closes[index]] if self.closes else self.branches[index][-1].norms
            for module in last:
                nn.init.zeros_(module.weight)
                nn.init.zeros_(module.bias)

    def parameters_from(self, first: int) -> list[nn.Parameter]:
        """Returns the parameters that only the branches from number ``first`` on have."""
        own = [*self.branches[first:].parameters(), *(self.closes[first:].parameters() if self.closes else ())]
        shared = {id(p) for p in [*self.branches[:first].parameters(), *self.closes[:first].parameters()]}
        return [p for p in own if id(p) not in shared]

    def steps(
        self, feats: Sequence[Tensor], detach_branches: bool = False, num_branches: Optional[int] = None
    ) -> tuple[Features, list[Features]]:
        """Computes the parts of the approximation.

        Args:
            feats: The student's features of each level, ``(N, C_s)`` or ``(N, C_s, H_l, W_l)``.
            detach_branches: Whether the branches read detached features. P always reads them with gradient.
            num_branches: How many branches are run, the first ones. Defaults to all.

        Returns:
            ``h_0`` and ``[D_1, ..., D_N]``, each a tuple over levels with C_t channels (in units of the teacher's
            standard deviation if ``standardize``).
        """
        if len(feats) != self.num_levels:
            raise ValueError(f'expected features of {self.num_levels} levels, found {len(feats)}')
        count = self.num_branches if num_branches is None else num_branches
        initial = tuple(self.projection(f) for f in feats)
        read = [f.detach() for f in feats] if detach_branches else feats
        per_level = [self._branch_outputs(f, level, count) for level, f in enumerate(read)]
        return initial, [tuple(level[i] for level in per_level) for i in range(count)]

    def forward(self, feats: Sequence[Tensor]) -> Features:
        """Returns ``h_N`` of each level, on the scale of the teacher's features."""
        initial, increments = self.steps(feats)
        final = tuple(sum(parts, h) for h, *parts in zip(initial, *increments))
        return self.to_teacher_scale(final)

    def to_teacher_scale(self, feats: Sequence[Tensor]) -> Features:
        """Undoes the standardisation, if there is one."""
        return tuple(feats) if self.standardizer is None else self.standardizer.denormalize(feats)

    def _branch_outputs(self, feat: Tensor, level: int, count: int) -> list[Tensor]:
        outputs: list[Tensor] = []
        for index, blocks in enumerate(self.branches[:count]):
            x = self._branch_input(feat, outputs, index)
            for block in blocks:
                x = block(x, level)
            outputs.append(x)
        if not self.closes:
            return outputs
        return [self.closes[i if len(self.closes) > 1 else 0](x) for i, x in enumerate(outputs)]

    def _branch_input(self, feat: Tensor, outputs: list[Tensor], index: int) -> Tensor:
        if self.wiring == 'parallel' or (index == 0 and self.wiring != 'mix'):
            return feat
        if self.wiring == 'cascade':
            return outputs[-1]
        if self.wiring == 'accumulate':
            return sum(outputs, feat)
        shape = (1, -1) + (1,) * (feat.dim() - 2)
        mixed = [self.beta[index, j].view(shape) * x for j, x in enumerate(outputs)]
        return sum(mixed, self.alpha[index].view(shape) * feat)


def _one_width(side: str, channels: Union[int, Sequence[int]]) -> int:
    widths = {channels} if isinstance(channels, int) else set(channels)
    if len(widths) != 1:
        raise ValueError(
            f'{side}_channels: the weights are shared by all levels, so every level needs the same width, but found '
            f'{list(channels)}. Tap the neck (FPN) instead of the backbone.'
        )
    return widths.pop()


def _check(
    num_branches: int,
    depths: list[int],
    kernels: list[Optional[int]],
    wiring: str,
    act: str,
    norm: str,
    shared: int,
    bottleneck: int,
) -> None:
    if num_branches < 1 or len(depths) != num_branches or min(depths) < 1:
        raise ValueError(f'expected N >= 1 branches of >= 1 blocks each, found N = {num_branches} with blocks {depths}')
    if not all(k is None or (k % 2 == 1 and k > 0) for k in kernels):
        raise ValueError(f'kernel_size must be None (vectors) or an odd number (maps), found {kernels[0]}')
    if len(kernels) < max(depths):
        raise ValueError(f'kernel_size: expected a number for each of {max(depths)} blocks, found {kernels}')
    if bottleneck < 1:
        raise ValueError(f'bottleneck must be at least 1, found {bottleneck}')
    if not 0 <= shared < min(depths):
        raise ValueError(f'shared_blocks must be in [0, {min(depths) - 1}], so that branches differ; found {shared}')
    for name, value, allowed in (('wiring', wiring, WIRINGS), ('act', act, ACTIVATIONS), ('norm', norm, NORMS)):
        if value not in allowed:
            raise ValueError(f'{name} must be one of {tuple(allowed)}, found {value!r}')
