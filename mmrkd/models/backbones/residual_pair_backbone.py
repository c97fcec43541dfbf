"""Student and assistant of ResidualKD as one backbone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Optional, Union

import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmrkd.models.backbones.residual_sum import ResidualSum
from mmrkd.registry import MODELS


@MODELS.register_module()
class ResidualPairBackbone(BaseModule):
    """Two backbones on the same images whose features are added, stage by stage (arXiv 2002.09168).

    .. code:: text

        images ──┬── student S ──── F_S ── phi ──┐
                 │                               + ── F = phi(F_S) + F_A ── neck, head
                 └── assistant A ──────── psi ───┘
                                      F_A is what psi gives

    In place of the backbone that S and A were derived from (:func:`mmrkd.models.backbones.separate`) it gives features
    of the same widths and strides, so neck and head stay what they were. It runs in any mmdet detector and mmpretrain
    classifier, with ``custom_imports = dict(imports=['mmrkd'])`` in its config.

    phi and psi are 1x1 convolutions with a BatchNorm and without an activation; for stages that are vectors, linear
    layers. The paper has phi only where widths differ, and so has this. psi is always there (ours): backbones end in a
    ReLU, but a residual has both signs. Where A is as wide as F it is depthwise. Without the BatchNorm (ours, too) a
    pair learns slower than its S alone. ``norm_eval`` of a part does not reach it.

    Stages are named by the ``out_indices`` of S, if it has some, otherwise counted from 0: ``sums.3`` is the same stage
    of a classifier that gives the last stage alone and of a detector that reads four, and the weights of one load into
    the other.

    Gradients flow through everything. ``train()``, ``init_weights()`` and the arguments of the parts
    (``frozen_stages``, ``norm_eval``, ``init_cfg``) work as in the parts alone.

    Args:
        student: Config of S.
        assistant: Config of A; ``None`` builds S and phi alone, to which the weights of a pair fit.
        out_channels: Widths of F, finest stage first. Defaults to those of S.
        init_cfg: See :class:`mmengine.model.BaseModule`. ``Pretrained`` fills the pair from a checkpoint of a pair.

    Raises:
        ValueError: S and A give other numbers of stages or other strides, or ``out_channels`` has another length.

    Examples:
        >>> part = dict(type='ResNet', depth=18, _scope_='mmdet')
        >>> pair = ResidualPairBackbone(dict(part, base_channels=55), dict(part, base_channels=31), [64, 128, 256, 512])
        >>> [f.shape[1] for f in pair(torch.rand(1, 3, 64, 64))]
        [64, 128, 256, 512]
    """

    def __init__(
        self,
        student: dict,
        assistant: Optional[dict] = None,
        out_channels: Optional[Sequence[int]] = None,
        init_cfg: Optional[Union[dict, list[dict]]] = None,
    ) -> None:
        super().__init__(init_cfg)
        self.student = MODELS.build(student)
        self.assistant = None if assistant is None else MODELS.build(assistant)
        shapes = stage_shapes(self.student)
        widths = list(out_channels or [channels for channels, _ in shapes])
        if len(widths) != len(shapes):
            raise ValueError(f'out_channels: expected {len(shapes)} widths, one for each stage of S, found {widths}')
        others = [None] * len(shapes) if self.assistant is None else stage_shapes(self.assistant)
        if self.assistant is not None and [size for _, size in shapes] != [size for _, size in others]:
            raise ValueError(
                'student and assistant must give the same stages, but for the same image they give '
                f'(channels, cells) {shapes} and {others}. Give both the same out_indices and strides.'
            )
        self.sums = nn.ModuleDict()
        for name, own, other, width in zip(_stage_names(self.student, len(shapes)), shapes, others, widths):
            phi = None if own[0] == width else _projection(own, width)
            self.sums[name] = ResidualSum(phi, other and _projection(other, width))
        self.assisted = self.assistant is not None

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Returns F of each stage for images ``(N, 3, H, W)``."""
        student_feats = as_tuple(self.student(x))
        if not self.assisted:
            return tuple(add(f) for add, f in zip(self.sums.values(), student_feats))
        return tuple(add(s, a) for add, s, a in zip(self.sums.values(), student_feats, as_tuple(self.assistant(x))))

    @contextmanager
    def unassisted(self) -> Iterator[None]:
        """Gives phi(F_S) alone, and does not run A, inside one ``with`` block."""
        before, self.assisted = self.assisted, False
        try:
            yield
        finally:
            self.assisted = before

    def assistant_modules(self) -> list[nn.Module]:
        """A and psi: what the assistant consists of. All else of the pair is the student's."""
        return [*([] if self.assistant is None else [self.assistant]), *(s.assistant for s in self.sums.values())]


@torch.no_grad()
def stage_shapes(backbone: nn.Module, size: int = 64) -> list[tuple[int, Optional[int]]]:
    """Runs a backbone on a blank image and returns ``(channels, cells along one side)`` of each stage.

    A stage that the backbone pools to a vector ``(N, C)`` has no cells: ``None``. Changes no buffer and no mode.
    """
    training = [module for module in backbone.modules() if module.training]
    backbone.eval()
    feats = as_tuple(backbone(next(backbone.parameters()).new_zeros(1, 3, size, size)))
    for module in training:
        module.training = True
    return [(f.shape[1], f.shape[-1] if f.dim() == 4 else None) for f in feats]


def as_tuple(feats: Union[Tensor, Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """Some backbones give a bare tensor where they give one stage."""
    return (feats,) if isinstance(feats, Tensor) else tuple(feats)


def _projection(shape: tuple[int, Optional[int]], width: int) -> nn.Module:
    channels, cells = shape
    if cells is None:
        return nn.Linear(channels, width)
    groups = width if channels == width else 1
    return ConvModule(channels, width, 1, groups=groups, norm_cfg=dict(type='BN'), act_cfg=None)


def _stage_names(backbone: nn.Module, count: int) -> list[str]:
    indices = getattr(backbone, 'out_indices', None)
    indices = list(indices) if isinstance(indices, (list, tuple)) else []
    return [str(i) for i in (indices if len(indices) == count else range(count))]
