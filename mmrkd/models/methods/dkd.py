"""DKD: decoupled knowledge distillation."""

from collections.abc import Sequence
from typing import Optional

from torch import Tensor

from mmrkd.models.losses import decoupled_kl, standardize_logits
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.methods.numbers import require_positive, require_weights
from mmrkd.registry import MODELS
from mmrkd.structures import StudentView, TeacherView

TARGETS = ('label', 'teacher')


@MODELS.register_module()
class DKD(DistillMethod):
    r"""Zhao et al., `Decoupled Knowledge Distillation` (arXiv 2203.08679, Eq. 7).

    .. math:: L = w_{task} L_{task}(z_s) + \alpha\, TCKD + \beta\, NCKD

    KL divides into how sure the teacher is of the true class and how it ranks the others; KD weighs the second part by
    :math:`1 - p_t^y`, which is least where the teacher knows best. Here both weights are free
    (:func:`~mmrkd.models.losses.decoupled_kl`).

    The release raises both terms over the first epochs (CIFAR 20, ImageNet 1), in steps of an epoch;
    ``dict(type='mmrkd.DistillScheduleHook', warmup=20)`` does so continuously, and not at all for detectors.

    On two-stage detectors, as released, the second stage is compared (the first of a cascade), on all regions that the
    student sampled, with the background as one of the classes.

    Gradient contract: flows into the student; the teacher is detached.

    Args:
        alpha: Weight of TCKD. Defaults to 1.
        beta: Weight of NCKD. ``None`` is 8 for classifiers, the release's for most pairs on CIFAR-100 (there it goes
            from 2 to 8 by pair, on ImageNet it is 0.5 for ResNet-18 or 2 for MobileNet-V1), and 0.25 for detectors.
        tau: Temperature. ``None`` is 4 for classifiers, the release's on CIFAR-100 (on ImageNet it is 1), and 1 for
            detectors.
        w_task: Weight of the student's own losses. Defaults to 1.
        target: The class that is set apart: ``'label'``, or ``'teacher'``: the teacher's first choice, for images that
            have no single class because they are mixed (ours). Defaults to ``'label'``.
        standardize_logits: Whether both logits are standardised first (Sun et al., arXiv 2403.01427). Defaults to
            False.

    Raises:
        ValueError: A number is out of range, the models are no classifiers, or their heads do not line up or score
            classes independently. In training: an image has no single class.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> method = MODELS.build(dict(type='mmrkd.DKD', alpha=1.0, beta=2.0, tau=4.0))
        >>> dict(method.weights)
        {'alpha': 'loss_tckd', 'beta': 'loss_nckd'}

        KD is the two terms with weights that nobody chose:

        >>> import torch
        >>> from mmrkd.models.losses import decoupled_kl, kl_divergence
        >>> z_s, z_t = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[3.0, 1.0, 0.0]])
        >>> target, others = decoupled_kl(z_s, z_t, torch.tensor([0]), tau=1.0)
        >>> sure = z_t.softmax(dim=1)[0, 0]
        >>> torch.allclose(target + (1 - sure) * others, kl_divergence(z_s, z_t))
        True
    """

    weights = {'alpha': 'loss_tckd', 'beta': 'loss_nckd'}

    def __init__(
        self,
        alpha: float = 1.0,
        beta: Optional[float] = None,
        tau: Optional[float] = None,
        w_task: float = 1.0,
        target: str = 'label',
        standardize_logits: bool = False,
    ) -> None:
        super().__init__()
        require_weights('DKD', alpha=alpha, beta=8.0 if beta is None else beta, w_task=w_task)
        require_positive('DKD', tau=4.0 if tau is None else tau)
        if target not in TARGETS:
            raise ValueError(f'target must be one of {TARGETS}, found {target!r}')
        self.alpha, self.beta, self.tau, self.task_weight = alpha, beta, tau, w_task
        self.target, self.standardize_logits = target, standardize_logits

    def setup(self, pair: Pair) -> None:
        """Checks that there is a softmax to compare, and chooses what was left to it."""
        self.reads_regions = pair.require_softmax('DKD')
        defaults = dict(beta=0.25, tau=1.0) if self.reads_regions else dict(beta=8.0, tau=4.0)
        for name, value in defaults.items():
            setattr(self, name, value if getattr(self, name) is None else getattr(self, name))

    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_tckd`` and ``loss_nckd``."""
        z_s, z_t = self.pair.softmax_logits(student, teacher)
        if self.target == 'teacher':
            labels = z_t.argmax(dim=1)
        elif self.reads_regions:
            labels = student.regions.labels
        else:
            labels = self.pair.student.targets(samples).to(z_s.device)
        if self.standardize_logits:
            z_s, z_t = standardize_logits(z_s), standardize_logits(z_t)
        target_term, other_term = decoupled_kl(z_s, z_t, labels, self.tau)
        return {'loss_tckd': self.alpha * target_term, 'loss_nckd': self.beta * other_term}
