"""RDD: the teacher weighs the pixels of the student's own loss."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Literal

import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor

from mmrkd.adapters.weighing import PixelLoss
from mmrkd.models.heads import OutputMimicry
from mmrkd.models.losses import (
    combined_pixels,
    difficulty_weight,
    hard_pixels,
    mask_shares,
    true_class_probability,
)
from mmrkd.models.losses.divergences import precise
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.methods.numbers import require_share, require_weights
from mmrkd.registry import MODELS
from mmrkd.structures import StudentView, TeacherView


@MODELS.register_module()
class RDD(DistillMethod):
    r"""Relative Difficulty Distillation for semantic segmentation (arXiv 2407.03719).

    The teacher adds no objective, it says which pixels of the student's own loss count. First those that the teacher
    alone finds easy (TFE), from iteration W on those whose difficulty the two disagree about (TSE):

    .. math::
        L_{TFE} &= \mathrm{mean}\left[e^{-D} CE(z_s, y)\right], \quad D = KL(softmax(a_t) \| softmax(z_t)) \\
        L_{TSE} &= \mathrm{mean}_{M_s \oplus M_t}\left[CE(z_s, y)\right], \quad
        M = \{p_y \le \max(\theta, p_{(min\_kept)})\}

    and in both :math:`L = L_{task} + w_{kd} KL(z_t \| z_s)` at the stride of the head, temperature 1. z is what a
    decode head gives, a an auxiliary head; auxiliary heads of the student are weighed alike, by :math:`a_s` and
    :math:`a_t`, and keep the weight of their loss. As released: TFE ignores weights of classes and its mean counts
    ignored pixels, TSE averages with weights of classes if the student's loss has some. Where nothing is in the mask
    the release gives NaN, where there are fewer pixels than ``min_kept`` it ends; here the loss is 0, and all of them
    are hard (a warning says so if it is a whole batch).

    Gradient contract: flows through the student's cross entropy and KL; the teacher and all weights are detached.

    Args:
        w_kd: Weight of the KL term. Defaults to 1.
        w_rdd: How much of the student's own loss is weighed, in [0, 1]: the rest is the plain one. At 0 it is plain KD.
            Defaults to 1.
        warmup: W. A whole number is an iteration, a fraction below 1 a share of the training; 0: no TFE. Defaults to
            0.1 (the recipes: 4000 of 40000).
        theta: Pixels up to this probability of their class are hard. Defaults to 0.7.
        min_kept: So many pixels of the batch on one device are hard in any case; a fraction below 1 is a share of them
            (ours). Defaults to 100000, which the release chose for crops of 512 x 1024.
        combination: Of the hard pixels of both: ``'xor'``, ``'or'``, ``'and'``, or ``'student'`` alone. Defaults to
            ``'xor'``.
        fade: Whether TFE fades out from iteration W to the end (``L = (1 - g) TSE + g TFE``, g from 1 to 0), and does
            not end at W. Defaults to False.
        auxiliary: Which auxiliary head of the teacher is meant, if it has several (ours). Defaults to 0.

    Raises:
        ValueError: An argument is out of range, the teacher has no auxiliary head, the student's loss is no cross
            entropy of classes, or the two heads do not line up.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> method = MODELS.build(dict(type='mmrkd.RDD', combination='or', warmup=0.2))
        >>> method.combination
        'or'

        A pixel on which the two heads of a teacher differ is a difficult one, and counts less at first:

        >>> import torch
        >>> from mmrkd.models.losses import difficulty_weight
        >>> decode, auxiliary = torch.tensor([0.9, 0.1]).log(), torch.tensor([0.5, 0.5]).log()
        >>> weight = difficulty_weight(decode.view(1, 2, 1, 1), auxiliary.view(1, 2, 1, 1))
        >>> round(weight.item(), 4)
        0.6
    """

    weights = {'w_kd': 'loss_kd'}

    def __init__(
        self,
        w_kd: float = 1.0,
        w_rdd: float = 1.0,
        warmup: float = 0.1,
        theta: float = 0.7,
        min_kept: float = 100000,
        combination: Literal['xor', 'or', 'and', 'student'] = 'xor',
        fade: bool = False,
        auxiliary: int = 0,
    ) -> None:
        super().__init__()
        require_weights('RDD', w_kd=w_kd, warmup=warmup, min_kept=min_kept)
        require_share('RDD', w_rdd=w_rdd, theta=theta)
        if warmup > 1 and warmup != int(warmup):
            raise ValueError(f'RDD: warmup is a number of iterations, or a share of the training below 1: {warmup}')
        if combination not in ('xor', 'or', 'and', 'student'):
            raise ValueError(f"RDD: combination must be 'xor', 'or', 'and' or 'student', found {combination!r}")
        self.w_kd, self.w_rdd, self.warmup, self.fade = w_kd, w_rdd, warmup, fade
        self._warned = False
        self.theta, self.min_kept, self.combination, self.auxiliary = theta, min_kept, combination, auxiliary

    @property
    def active(self) -> bool:
        """Whether it adds a term or weighs pixels."""
        return bool(self.w_kd or self.w_rdd)

    @property
    def needed_hooks(self) -> tuple[str, ...]:
        """What says when TFE ends."""
        return ('PhaseHook',) if self.w_rdd and (self.warmup or self.fade) else ()

    def setup(self, pair: Pair) -> None:
        """Checks that there are two heads to judge by, and a loss to weigh."""
        pair.require_exclusive_classes('RDD')
        self.mimicry = OutputMimicry(pair.student, tau=1.0, w_box=0.0)
        if not self.w_rdd:
            return
        obstacle = pair.student.weighing_obstacle
        if obstacle is not None:
            raise ValueError(f"RDD weighs the pixels of the student's own loss, but {obstacle}.")
        adapter = pair.teacher.adapter
        with adapter.evaluating():
            found = len(adapter.auxiliary_outputs(adapter.dry_feats))
        if not -found <= self.auxiliary < found:
            raise ValueError(
                'RDD judges how difficult a pixel is by how far an auxiliary head of the teacher is from its decode '
                f'head: expected number {self.auxiliary} of its auxiliary heads, but this '
                f'{type(adapter.model).__name__} has {found}. Take a teacher that was trained with an auxiliary_head, '
                'or KD.'
            )
        for reason in pair.student.unweighed_heads:
            print_log(f'RDD leaves the loss of an auxiliary head as it is: {reason}', 'current')

    def around_task(self, teacher: TeacherView) -> AbstractContextManager[Any]:
        """Weighs the pixels of the student's own loss."""
        if not self.w_rdd:
            return super().around_task(teacher)
        return self.pair.student.weighing(partial(self._weigh, teacher))

    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_kd``, if it has a weight."""
        return self.mimicry('loss_kd', self.w_kd, student.outputs, teacher.outputs) if self.w_kd else {}

    @property
    def easy_share(self) -> float:
        """Share of TFE in this iteration, g: 1 before W; behind it 0, or less and less. 0 where nothing counts them."""
        if self.progress is None:
            return 0.0
        total, now = self.progress.max_iterations, self.progress.iterations + 1
        begin = self.warmup if self.warmup >= 1 else round(self.warmup * total)
        if now < begin:
            return 1.0
        return (total - now) / max(total - begin, 1) if self.fade else 0.0

    def _weigh(self, teacher: TeacherView, loss: PixelLoss) -> Tensor:
        """Returns what the cross entropy of each pixel is multiplied by in the sum."""
        self._warn_of_no_choice(loss.labels)
        easy, share = self.easy_share, min(self.w_rdd * self.factor, 1.0)
        wanted = 0.0
        if easy > 0:
            wanted = easy * self._easy(teacher, loss)
        if easy < 1:
            wanted = wanted + (1 - easy) * self._disputed(teacher, loss)
        if share < 1:
            wanted = share * wanted + (1 - share) * loss.plain
        return wanted

    def _kept(self, labels: Tensor) -> int:
        return int(self.min_kept if self.min_kept >= 1 else self.min_kept * labels.numel())

    def _warn_of_no_choice(self, labels: Tensor) -> None:
        if self._kept(labels) >= labels.numel() and not self._warned:
            self._warned = True
            print_log(
                f'RDD: min_kept={self.min_kept} pixels are hard in any case, and a batch has {labels.numel()}: all of '
                "them are, for teacher and student alike, so that 'xor' leaves none. Give a smaller number, or a share "
                'such as min_kept=0.1.',
                'current',
                logging.WARNING,
            )

    def _easy(self, teacher: TeacherView, loss: PixelLoss) -> Tensor:
        logits, auxiliary = self._logits(teacher, True), self._logits(teacher, False)
        if auxiliary.shape[2:] != logits.shape[2:]:
            auxiliary = self.pair.teacher.adapter.enlarged(auxiliary, logits.shape[2:])
        weight = difficulty_weight(logits, auxiliary).unsqueeze(1)
        size = loss.labels.shape[1:]
        weight = F.interpolate(weight, size, mode='bilinear', align_corners=True).squeeze(1)
        return weight / weight.numel()

    def _disputed(self, teacher: TeacherView, loss: PixelLoss) -> Tensor:
        theirs = self.pair.teacher.adapter.enlarged(self._logits(teacher, loss.main), loss.labels.shape[1:])
        kept = self._kept(loss.labels)
        masks = [
            hard_pixels(true_class_probability(z, loss.labels, loss.valid), loss.valid, self.theta, kept)
            for z in (loss.logits, theirs)
        ]
        return mask_shares(combined_pixels(*masks, self.combination), loss.class_weights)

    def _logits(self, teacher: TeacherView, main: bool) -> Tensor:
        outputs = teacher.outputs if main else teacher.auxiliary_outputs[self.auxiliary]
        (logits,) = self.pair.teacher.adapter.logit_maps(outputs)
        return precise(logits)
