"""KD: the teacher's logits as soft targets."""

from collections.abc import Sequence
from typing import Optional

from torch import Tensor

from mmrkd.models.heads import OutputMimicry
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.registry import MODELS
from mmrkd.structures import StudentView, TeacherView


@MODELS.register_module()
class KD(DistillMethod):
    r"""Hinton et al., `Distilling the Knowledge in a Neural Network` (arXiv 1503.02531).

    .. math:: L = w_{task} L_{task}(z_s) + w_{kd} T^2 KL(softmax(sg\, z_t / T) \| softmax(z_s / T))

    On a detector the dense logits, and if asked the boxes, of the two heads are compared
    (:class:`~mmrkd.models.heads.OutputMimicry`; ours). Heatmaps of a pose estimator are compared as Fast Pose
    Distillation does (arXiv 1811.05419), by half of the mean squared error over the joints that are visible
    (:func:`~mmrkd.models.losses.heatmap_mse`): a softmax over positions would leave next to nothing of values near 0.

    Gradient contract: flows into the student; the teacher is detached.

    Args:
        w_task: Weight of the student's own losses. Defaults to 1.
        w_kd: Weight of the KL term. Defaults to 1.
        tau: T; ``None`` is 4 for classifiers and 1 for all others. Heatmaps have none.
        w_box: Weight of a detector's boxes, relative to ``w_kd``. Defaults to 0: logits alone.
        tau_box: Temperature of the box distributions of GFL-type heads. Defaults to 10.
        standardize_logits: Whether both logits are standardised first (Sun et al., arXiv 2403.01427): KL that is blind
            to the range of the student's logits. Its release has ``tau=2, w_kd=9, w_task=0.1`` on CIFAR-100. Defaults
            to False.

    Raises:
        ValueError: The two heads do not line up, or logits of independent scores are to be standardised.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> method = MODELS.build(dict(type='mmrkd.KD', w_task=0.1, w_kd=0.9, tau=4.0))
        >>> method.task_weight, method.w_kd
        (0.1, 0.9)

        Where the teacher is three to one for a class and the student undecided:

        >>> import math, torch
        >>> from mmrkd.models.losses import kl_divergence
        >>> round(kl_divergence(torch.zeros(1, 2), torch.tensor([[math.log(3), 0.0]])).item(), 4)
        0.1308
    """

    weights = {'w_kd': 'loss_kd*'}

    def __init__(
        self,
        w_task: float = 1.0,
        w_kd: float = 1.0,
        tau: Optional[float] = None,
        w_box: float = 0.0,
        tau_box: float = 10.0,
        standardize_logits: bool = False,
    ) -> None:
        super().__init__()
        self.task_weight, self.w_kd = w_task, w_kd
        self.mimicry_cfg = dict(tau=tau, w_box=w_box, tau_box=tau_box, standardize=standardize_logits)

    def setup(self, pair: Pair) -> None:
        """Checks that the heads line up."""
        if self.mimicry_cfg['standardize']:
            pair.require_exclusive_classes('KD(standardize_logits=True)')
        pair.require_same_layout('KD')
        self.mimicry = OutputMimicry(pair.student, **self.mimicry_cfg)

    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_kd`` and, with ``w_box`` on a detector, ``loss_kd_box``."""
        return self.mimicry('loss_kd', self.w_kd, student.outputs, teacher.outputs, samples)
