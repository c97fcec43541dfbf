"""DSKD: the teacher supervises the student's shallow stages, too."""

import math
from collections.abc import Sequence
from typing import Optional

import torch
from mmengine.model import ModuleList
from torch import Tensor, nn

from mmrkd.adapters.stages import stage_ends
from mmrkd.models.losses import allocated_weights, feature_mse, kl_divergence
from mmrkd.models.losses.deep_supervision import ALLOCATIONS
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.methods.exit_variant import ExitVariant
from mmrkd.models.methods.last_map import last_map, map_strides
from mmrkd.models.methods.numbers import require_positive, require_weights
from mmrkd.models.necks import AuxiliaryBranch, ChannelStandardizer, Projection
from mmrkd.models.variants import Variant
from mmrkd.registry import MODELS
from mmrkd.structures import StudentView, TeacherView, on_student_grid

BACKBONE = 'backbone'


@MODELS.register_module()
class DSKD(DistillMethod):
    r"""`Knowledge distillation with deep supervision` (arXiv 2202.07846). Classifiers. A reconstruction.

    .. math::
        L = L_{task}(z_s) + \alpha \sum_i w_i KL_\tau(z_t \| z_i) + \beta \sum_i v_i MSE(map_i, f_t) \qquad
        w = alloc(KL), v = alloc(MSE)

    .. code:: text

        stage 1 ── stage 2 ── ... ── last stage ── head ── z_s
           │          │                  │
        branch 1   branch 2          1x1 conv where widths differ
           │          │                  │
        map_1, z_1  map_2, z_2        map_M+1              f_t: the teacher's last map

    The authors' repository is empty. The paper's, as its abstract says: the teacher's predictions and last features
    supervise the shallow stages, weighed by the losses themselves. Second hand: a softmax over the losses, the last
    exit included. All else is ours: the branches (:class:`~mmrkd.models.necks.AuxiliaryBranch`), the weights, the
    standardisation. With a softmax the two families of terms are weighed on their own scales, so both are logged.

    Variants: ``exit1`` ... predict with the branches. Inference: the plain student.

    Gradient contract: flows into the student and the branches; the teacher and the weights w, v are detached.

    Args:
        alpha: Weight of the predictions. Defaults to 1.
        beta: Weight of the maps. Defaults to 1.
        tau: Temperature. Defaults to 4.
        alloc: ``'softmax'``, ``'proportional'`` or ``'uniform'``, see
            :func:`~mmrkd.models.losses.allocated_weights`. Defaults to ``'softmax'``.
        w_exit_task: Weight of the cross-entropy of the branches, summed, as papers on self-distillation add it.
            Defaults to 0.
        standardize: Whether maps are compared in units of the teacher's per-channel standard deviation. Defaults to
            True.
        student_layers: Modules of the student with which its stages end, finest first, without the last stage.
            Defaults to those that a run on a blank image shows (:func:`mmrkd.adapters.stages.stage_ends`).

    Raises:
        ValueError: A number or name is out of range, the models are no classifiers, their heads do not line up, a stage
            is coarser than the teacher's last map, or there is none.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> method = MODELS.build(dict(type='mmrkd.DSKD', alpha=1.0, beta=0.5))
        >>> method.teacher_taps
        ('backbone',)

        The exit that is further behind counts more:

        >>> import torch
        >>> from mmrkd.models.losses import allocated_weights
        >>> allocated_weights(torch.tensor([1.0, 3.0]), 'proportional')
        tensor([0.2500, 0.7500])
    """

    weights = {'alpha': 'loss_kl', 'beta': 'loss_map', 'w_exit_task': 'loss_exit_task'}

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 1.0,
        tau: float = 4.0,
        alloc: str = 'softmax',
        w_exit_task: float = 0.0,
        standardize: bool = True,
        student_layers: Optional[Sequence[str]] = None,
    ) -> None:
        super().__init__()
        require_weights('DSKD', alpha=alpha, beta=beta, w_exit_task=w_exit_task)
        require_positive('DSKD', tau=tau)
        if alloc not in ALLOCATIONS:
            raise ValueError(f'DSKD: alloc must be one of {ALLOCATIONS}, found {alloc!r}')
        self.alpha, self.beta, self.tau, self.alloc = alpha, beta, tau, alloc
        self.w_exit_task, self.standardize, self.student_layers = w_exit_task, standardize, student_layers
        self.teacher_taps = (BACKBONE,)

    def setup(self, pair: Pair) -> None:
        """Finds the stages and builds a branch for each."""
        pair.require_classifiers('DSKD')
        pair.require_same_pixels('DSKD')
        self.layers = tuple(self.student_layers or stage_ends(pair.student))
        self.student_taps = (*self.layers, BACKBONE)
        own, (target,) = map_strides('DSKD', pair.student, self.student_taps), _teacher_map(pair)
        self.branches = ModuleList(
            AuxiliaryBranch(width, target[0], _halvings(name, stride, target[1]), pair.student.num_classes)
            for name, (width, stride) in zip(self.layers, own)
        )
        if own[-1][1] != target[1]:
            raise ValueError(
                f"DSKD compares the last maps of the two backbones, but a cell of the student's is {own[-1][1]} pixels "
                f"wide, one of the teacher's {target[1]}. Take a teacher of the student's resolution."
            )
        self.projection = Projection([own[-1][0]], [target[0]], always=False)
        self.standardizer = ChannelStandardizer([target[0]]) if self.standardize else None

    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_kl``, ``loss_map`` and, with its weight, ``loss_exit_task``; and the weights of the exits."""
        maps, logits = zip(*(branch(student.taps[name]) for branch, name in zip(self.branches, self.layers)))
        own = last_map(student.taps[BACKBONE])
        target = on_student_grid(last_map(teacher.taps[BACKBONE]), own)
        targets, last = (target,), self.projection([own])
        if self.standardizer is not None:
            self.standardizer.update(targets)
            targets = self.standardizer.normalize(targets)
        z_s, z_t = (torch.cat(self.pair.student.logits(view.outputs)) for view in (student, teacher))
        by_logits = torch.stack([kl_divergence(z, z_t, self.tau) for z in (*logits, z_s)])
        by_maps = torch.stack([feature_mse([_on_grid(m, targets[0])], targets) for m in (*maps, *last)])
        w, v = (allocated_weights(terms, self.alloc) for terms in (by_logits, by_maps))
        losses = dict(loss_kl=self.alpha * (w * by_logits).sum(), loss_map=self.beta * (v * by_maps).sum())
        if self.w_exit_task:
            scores = self.pair.student.target_scores(samples).to(z_s)
            tasks = [nn.functional.cross_entropy(z.float(), scores.float()) for z in logits]
            losses['loss_exit_task'] = self.w_exit_task * torch.stack(tasks).sum()
        names = [*(f'exit{i + 1}' for i in range(len(maps))), 'last']
        losses.update({f'weight_kl_{name}': value for name, value in zip(names, w)})
        losses.update({f'weight_map_{name}': value for name, value in zip(names, v)})
        return losses

    def prediction_variants(self) -> list[Variant]:
        """Returns ``exit1`` ..., what each branch predicts."""
        pairs = zip(self.layers, self.branches)
        return [ExitVariant(f'exit{i + 1}', self.pair.student, *pair) for i, pair in enumerate(pairs)]


def _teacher_map(pair: Pair) -> list[tuple[int, int]]:
    return map_strides('DSKD', pair.teacher.adapter, (BACKBONE,))


def _halvings(name: str, stride: int, target: int) -> int:
    halvings = math.log2(target / stride)
    if halvings < 0 or halvings % 1:
        raise ValueError(
            f"DSKD: the stage {name!r} of the student has cells of {stride} pixels, the teacher's last map cells of "
            f'{target}: halving never leads from one to the other. Name other stages (student_layers).'
        )
    return int(halvings)


def _on_grid(own: Tensor, target: Tensor) -> Tensor:
    """Convolutions round up and poolings down, so that a map of an odd size may have a cell more."""
    height, width = target.shape[2:]
    return own[..., :height, :width]
