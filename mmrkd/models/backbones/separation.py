"""Model separation of ResidualKD: one backbone becomes a student and an assistant that cost no more together."""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Optional

import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.logging import print_log
from torch import Tensor, nn

from mmrkd.models.backbones.residual_pair_backbone import ResidualPairBackbone, stage_shapes
from mmrkd.models.backbones.widths import Widths, constructor_arguments
from mmrkd.registry import MODELS


@dataclass(frozen=True)
class ComputeCost:
    """Parameters, and floating point operations for one image (multiply-adds, as mmengine counts)."""

    params: float
    flops: float

    def within(self, budget: 'ComputeCost') -> bool:
        """Whether neither number is above the budget's."""
        return self.params <= budget.params and self.flops <= budget.flops

    def __sub__(self, other: 'ComputeCost') -> 'ComputeCost':
        """What is left."""
        return ComputeCost(self.params - other.params, self.flops - other.flops)

    def ratio(self, other: 'ComputeCost') -> float:
        """The smaller of the two ratios to another cost."""
        return min(self.params / other.params, self.flops / other.flops)


@dataclass(frozen=True)
class Separation:
    """What :func:`separate` found.

    Attributes:
        backbone: Config of the :class:`ResidualPairBackbone`, to stand where the original stood.
        original: Cost of the original backbone.
        student: Cost of S with its projections phi.
        assistant: Cost of A with its projections psi.
        pair: Cost of the pair as it was built.
    """

    backbone: dict
    original: ComputeCost
    student: ComputeCost
    assistant: ComputeCost
    pair: ComputeCost

    def table(self) -> str:
        """Returns the four costs as a Markdown table."""
        rows = ['| backbone | params (M) | FLOPs (G) | of the params | of the FLOPs |', '|---|---|---|---|---|']
        for name in ('original', 'student', 'assistant', 'pair'):
            cost: ComputeCost = getattr(self, name)
            shares = f'{cost.params / self.original.params:.1%} | {cost.flops / self.original.flops:.1%}'
            rows.append(f'| {name} | {cost.params / 1e6:.4f} | {cost.flops / 1e9:.4f} | {shares} |')
        return '\n'.join(rows)


def separate(backbone: dict, assistant_share: float = 0.25, input_size: int = 224) -> Separation:
    """Derives student S and assistant A from one backbone (arXiv 2002.09168).

    A is the widest narrower copy that costs, with its projections psi, at most ``assistant_share`` of the original, in
    operations and in parameters. S is the widest one that costs, with its projections phi, at most what A left over.
    Costs are measured on modules that are built for it; the search only assumes that a wider copy costs no less.

    What the paper leaves open is ours: both budgets at once; all stages narrowed by one factor; projections back to the
    original widths, paid out of the budget, so that neck and head stay the original ones.

    Pretrained weights do not fit a narrower copy. They are left out of both configs, and with them what only makes
    sense on top of them: ``frozen_stages`` and ``norm_eval``.

    Args:
        backbone: Config of the original, of mmdet or mmpretrain (the default scope says which), with width arguments
            that :meth:`Widths.of` knows.
        assistant_share: Budget of A, in (0, 1). Defaults to 0.25.
        input_size: Side of the square image on which operations are counted. Defaults to 224.

    Raises:
        ValueError: The share is out of range, the backbone cannot be narrowed, or no pair fits into the budget.
    """
    if not 0 < assistant_share < 1:
        raise ValueError(f'assistant_share must be in (0, 1), found {assistant_share}')
    widths, backbone = Widths.of(backbone), _from_scratch(backbone)
    whole, image = MODELS.build(deepcopy(backbone)), torch.zeros(1, 3, input_size, input_size)
    original, out_channels = measure(whole, image), [channels for channels, _ in stage_shapes(whole)]

    def build(steps: int, assistant: Optional[dict] = None) -> nn.Module:
        student = widths.narrowed(backbone, steps)
        try:
            return ResidualPairBackbone(student, assistant, out_channels)
        except (AssertionError, ValueError) as error:
            changed = {name: value for name, value in student.items() if value != backbone.get(name)}
            raise ValueError(f'{backbone["type"]} cannot be narrowed to {changed}. It says: {error}') from error

    def student_cost(steps: int) -> ComputeCost:
        return measure(build(steps), image)

    def assistant_cost(steps: int) -> ComputeCost:
        """What it adds to a student, here to one as wide as itself."""
        return measure(build(steps, widths.narrowed(backbone, steps)), image) - student_cost(steps)

    share = ComputeCost(assistant_share * original.params, assistant_share * original.flops)
    steps, small = _widest(assistant_cost, share, widths.grid, original)
    assistant = widths.narrowed(backbone, steps)
    steps, large = _widest(student_cost, original - small, widths.grid, original)
    pair = dict(type='mmrkd.ResidualPairBackbone', student=widths.narrowed(backbone, steps), assistant=assistant)
    cost = measure(build(steps, assistant), image)
    return Separation(dict(pair, out_channels=out_channels), original, large, small, cost)


@torch.no_grad()
def measure(module: nn.Module, inputs: Tensor) -> ComputeCost:
    """Counts parameters and, with mmengine's analysis of a forward pass, operations."""
    module.eval()
    analyzer = FlopAnalyzer(module, inputs)
    analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return ComputeCost(sum(p.numel() for p in module.parameters()), int(analyzer.total()))


def _widest(
    cost_of: Callable[[int], ComputeCost], budget: ComputeCost, grid: int, original: ComputeCost
) -> tuple[int, ComputeCost]:
    """Brackets the most steps below ``grid`` that the budget allows; each guess takes the cost for quadratic."""
    low, high, found = 0, grid, None
    guess = grid * math.sqrt(budget.ratio(original))
    while high - low > 1:
        steps = min(max(int(guess), low + 1), high - 1)
        cost = cost_of(steps)
        if cost.within(budget):
            low, found = steps, cost
        else:
            high = steps
        guess = steps * math.sqrt(budget.ratio(cost))
    if found is None:
        raise ValueError(
            f'no narrower copy fits into the budget of {budget.params / 1e6:.4f} M parameters and '
            f'{budget.flops / 1e9:.4f} G operations, out of {original.params / 1e6:.4f} M and '
            f'{original.flops / 1e9:.4f} G: the width has only {grid} steps, and its smallest costs more. '
            'Change assistant_share, or start from a wider backbone.'
        )
    return low, found


def _from_scratch(backbone: dict) -> dict:
    """Leaves out pretrained weights and what only makes sense with them."""
    backbone = deepcopy(dict(backbone))
    if 'Pretrained' not in str(backbone.get('init_cfg')) and not backbone.get('pretrained'):
        return backbone
    print_log('separation: pretrained weights do not fit narrower copies, both parts start from scratch', 'current')
    for name in ('init_cfg', 'pretrained'):
        backbone.pop(name, None)
    taken = constructor_arguments(backbone)[1]  # some freeze by default
    return {**backbone, **{k: v for k, v in dict(frozen_stages=-1, norm_eval=False).items() if k in taken}}
