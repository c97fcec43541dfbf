"""R2KD: correlation with a teacher that is softened by a pruned copy of itself, on augmented images too."""

from collections.abc import Sequence
from typing import Optional

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmrkd.adapters import ModelAdapter, build_adapter
from mmrkd.models.heads import pruned_copy
from mmrkd.models.losses import rank_distance, value_distance
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.methods.batch_augments import AUGMENTS, augmented
from mmrkd.models.methods.numbers import require_positive, require_share, require_weights
from mmrkd.registry import MODELS
from mmrkd.structures import StudentView, TeacherView

RANKS = ('none', 'soft')
PIPELINE = 'pipeline'


@MODELS.register_module()
class R2KD(DistillMethod):
    r"""`Robustness-reinforced knowledge distillation with correlation distance and network pruning` (2311.13934).

    .. math::
        L = w_{task} L_{task}(z_s(x)) + value(x) + rank(x) + value(\tilde x) + rank(\tilde x) \qquad
        z_t \leftarrow c\, z_t + (1 - c)\, z_{pruned}

    ``value`` is :func:`~mmrkd.models.losses.value_distance`, ``rank``
    :func:`~mmrkd.models.losses.rank_distance`, :math:`\tilde x` the batch once more, augmented, without labels. The
    pruned teacher (:func:`~mmrkd.models.heads.pruned_copy`) is a plain object beside the teacher, in evaluation mode,
    made of it at the first step: neither saved nor trained, and one more teacher in memory. Classifiers.

    The release's: ``value``, pruning, defaults (it has Tiny-ImageNet alone). Not repeated: its rank term has no
    gradient at all, so that it trains by ``value`` alone; its pruned copy is left in training mode and drifts; its
    ``cutmixpick`` is cutmix; it draws from numpy. Ours: ``rank='soft'``, ``joint``, ``w_task``; that Spearman's
    correlation is logged.

    Gradient contract: flows into the student; both teachers are detached.

    Args:
        w_value: Weight of ``value``. Defaults to 2.
        w_rank: Weight of ``rank``, where there is one. Defaults to 2.
        tau: Temperature of ``value``. Defaults to 4.
        prune_rate: Share of each weight tensor that the copy loses, in [0, 1). Defaults to 0.1.
        teacher_share: c, in [0, 1]; 1 makes no copy. Defaults to 0.7.
        augment: How :math:`\tilde x` is made: ``'cutmix'`` (Beta(1, 1)), ``'mixup'`` (Beta(0.2, 0.2)), ``'cutout'``,
            ``'none'``: there is none; or ``'pipeline'``: it is the view ``'strong'`` of the pipeline. Defaults to
            ``'cutmix'``.
        rank: ``'none'``, or ``'soft'``: ranks that have a gradient. Defaults to ``'none'``.
        cutout_size: Side of the square that ``'cutout'`` fills with the mean, in pixels. Defaults to 16; 8 on CIFAR.
        w_task: Weight of the student's own losses. Defaults to 1.
        joint: Whether the student sees both batches as one BatchNorm batch. Defaults to False, as in the release.

    Raises:
        ValueError: A number or name is out of range, the models are no classifiers, or their heads do not line up.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> method = MODELS.build(dict(type='mmrkd.R2KD', augment='mixup', rank='soft'))
        >>> method.made_views
        ('augmented',)

        Ranks know nothing of how sure a teacher is:

        >>> import torch
        >>> from mmrkd.models.losses import hard_ranks, rank_distance
        >>> z = torch.tensor([[0.3, 0.1, 0.9]])
        >>> hard_ranks(z).tolist(), abs(rank_distance(z, 5 * z).item()) < 1e-4
        ([[2.0, 1.0, 3.0]], True)
    """

    weights = {'w_value': 'loss_value*', 'w_rank': 'loss_rank*'}

    def __init__(
        self,
        w_value: float = 2.0,
        w_rank: float = 2.0,
        tau: float = 4.0,
        prune_rate: float = 0.1,
        teacher_share: float = 0.7,
        augment: str = 'cutmix',
        rank: str = 'none',
        cutout_size: int = 16,
        w_task: float = 1.0,
        joint: bool = False,
    ) -> None:
        super().__init__()
        require_weights('R2KD', w_value=w_value, w_rank=w_rank, w_task=w_task)
        require_positive('R2KD', tau=tau, cutout_size=cutout_size)
        require_share('R2KD', prune_rate=prune_rate, teacher_share=teacher_share)
        known = (*AUGMENTS, 'none', PIPELINE)
        if augment not in known or rank not in RANKS or prune_rate == 1:
            raise ValueError(
                f'R2KD: augment must be one of {known}, rank one of {RANKS}, prune_rate less than 1, found '
                f'{augment!r}, {rank!r} and {prune_rate}'
            )
        self.w_value, self.w_rank, self.tau = w_value, w_rank if rank == 'soft' else 0.0, tau
        self.prune_rate, self.teacher_share, self.cutout_size = prune_rate, teacher_share, cutout_size
        self.augment, self.task_weight, self.joint = augment, w_task, joint
        self.views = ('strong',) if augment == PIPELINE else ()
        self.made_views = ('augmented',) if augment in AUGMENTS else ()
        self._pruned: Optional[ModelAdapter] = None

    def setup(self, pair: Pair) -> None:
        """Checks that both are classifiers whose heads line up; says what the copy costs."""
        pair.require_classifiers('R2KD')
        if self.teacher_share < 1:
            size = sum(p.numel() * p.element_size() for p in pair.teacher.model.parameters()) / 1e6
            print_log(f'R2KD: a pruned copy of the teacher stands beside it, {size:.1f} MB more', 'current')

    def make_views(self, inputs: Tensor) -> dict[str, Tensor]:
        """Returns the augmented batch."""
        return {name: augmented(inputs, self.augment, self.cutout_size) for name in self.made_views}

    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_value`` and ``loss_rank`` of the batch and, with ``_augmented``, of the augmented one."""
        losses = self._distances(student, teacher, '')
        for name in (*self.views, *self.made_views):
            losses.update(self._distances(student.views[name], teacher.views[name], '_augmented'))
        return losses

    @property
    def pruned(self) -> ModelAdapter:
        """The pruned teacher, where the teacher is now."""
        model = self.pair.teacher.model
        here = next(model.parameters())
        there = None if self._pruned is None else next(self._pruned.model.parameters())
        if there is None or (there.device, there.dtype) != (here.device, here.dtype):
            self._pruned = build_adapter(pruned_copy(model, self.prune_rate))
        return self._pruned

    def _distances(self, student: StudentView, teacher: TeacherView, of: str) -> dict[str, Tensor]:
        z_s = torch.cat(self.pair.student.logits(student.outputs))
        z_t = self._softened(teacher)
        losses = {f'loss_value{of}': self.w_value * value_distance(z_s, z_t, self.tau)}
        if self.w_rank:
            losses[f'loss_rank{of}'] = self.w_rank * rank_distance(z_s, z_t, width=1.0)
        losses[f'spearman{of}'] = 1 - rank_distance(z_s, z_t)
        return losses

    @torch.no_grad()
    def _softened(self, teacher: TeacherView) -> Tensor:
        z_t = torch.cat(self.pair.student.logits(teacher.outputs))
        if self.teacher_share == 1:
            return z_t
        outputs = self.pair.teacher.shared(self.pruned.training_outputs(self.pruned.extract(teacher.inputs)))
        return self.teacher_share * z_t + (1 - self.teacher_share) * torch.cat(self.pair.student.logits(outputs))
