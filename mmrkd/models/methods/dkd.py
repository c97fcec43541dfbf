"""DKD: decoupled knowledge distillation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmrkd.models.losses import decoupled_kl, standardize_logits
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.methods.numbers import require_positive, require_weights
from mmrkd.registry import MODELS
from mmrkd.structures import StudentView, TeacherView

TARGETS = ('label', 'teacher')


@MODELS.register_module()
class DKD(DistillMethod):
    r"""Zhao et al., `Decoupled Knowledge Distillation` (arXiv 2203.08679, Eq. 7). Classifiers.

    .. math:: L = w_{task} L_{task}(z_s) + \alpha\, TCKD + \beta\, NCKD

    KL divides into how sure the teacher is of the true class and how it ranks the others; KD weighs the second part by
    :math:`1 - p_t^y`, which is least where the teacher knows best. Here both weights are free
    (:func:`~mmrkd.models.losses.decoupled_kl`).

    The release raises both terms over the first epochs (CIFAR 20, ImageNet 1), in steps of an epoch;
    ``dict(type='mmrkd.DistillScheduleHook', warmup=20)`` does so continuously. Its detection form, on the logits of the
    second stage, is not here.

    Gradient contract: flows into the student; the teacher is detached.

    Args:
        alpha: Weight of TCKD. Defaults to 1.
        beta: Weight of NCKD. Defaults to 8, the release's for most pairs on CIFAR-100; there it goes from 2 to 8 by
            pair, on ImageNet it is 0.5 (ResNet-18) or 2 (MobileNet-V1).
        tau: Temperature. Defaults to 4, the release's on CIFAR-100; on ImageNet it is 1.
        w_task: Weight of the student's own losses. Defaults to 1.
        target: The class that is set apart: ``'label'``, or ``'teacher'``: the teacher's first choice, for images that
            have no single class because they are mixed (ours). Defaults to ``'label'``.
        standardize_logits: Whether both logits are standardised first (Sun et al., arXiv 2403.01427). Defaults to
            False.

    Raises:
        ValueError: A number is out of range, the models are no classifiers, or their heads do not line up or score
            classes independently. In training: an image has no single class.
    """

    weights = {'alpha': 'loss_tckd', 'beta': 'loss_nckd'}

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 8.0,
        tau: float = 4.0,
        w_task: float = 1.0,
        target: str = 'label',
        standardize_logits: bool = False,
    ) -> None:
        super().__init__()
        require_weights('DKD', alpha=alpha, beta=beta, w_task=w_task)
        require_positive('DKD', tau=tau)
        if target not in TARGETS:
            raise ValueError(f'target must be one of {TARGETS}, found {target!r}')
        self.alpha, self.beta, self.tau, self.task_weight = alpha, beta, tau, w_task
        self.target, self.standardize_logits = target, standardize_logits

    def setup(self, pair: Pair) -> None:
        """Checks that both are classifiers whose heads line up."""
        pair.require_classifiers('DKD')

    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_tckd`` and ``loss_nckd``."""
        z_s, z_t = (torch.cat(self.pair.student.logits(view.outputs)) for view in (student, teacher))
        labels = z_t.argmax(dim=1) if self.target == 'teacher' else self.pair.student.targets(samples).to(z_s.device)
        if self.standardize_logits:
            z_s, z_t = standardize_logits(z_s), standardize_logits(z_t)
        target_term, other_term = decoupled_kl(z_s, z_t, labels, self.tau)
        return {'loss_tckd': self.alpha * target_term, 'loss_nckd': self.beta * other_term}
