"""WTTM: the student matches a transformed teacher."""

from collections.abc import Sequence

from torch import Tensor

from mmrkd.models.losses import transformed_matching
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.methods.numbers import require_positive, require_weights
from mmrkd.registry import MODELS
from mmrkd.structures import StudentView, TeacherView


@MODELS.register_module()
class WTTM(DistillMethod):
    r"""Zheng and Yang, `Knowledge Distillation Based on Transformed Teacher Matching` (arXiv 2402.11148).

    .. math:: L = w_{task} L_{task}(z_s) + \frac{w_{ttm}}{N} \sum_n U_n KL(u_n / U_n \| softmax(z_s)),
        \quad u = softmax(z_t)^\gamma, \quad U = \sum_k u_k

    KD without the temperature on the student's side: the teacher alone is softened, which adds a Renyi entropy to what
    KD minimises. U gives samples of which the teacher is unsure more weight
    (:func:`~mmrkd.models.losses.transformed_matching`). The paper classifies; two-stage detectors are compared as
    :class:`DKD` does it (ours).

    Gradient contract: flows into the student; the teacher is detached.

    Args:
        w_ttm: Weight of the term. Defaults to 4. The release sets it and gamma by pair; its examples are 4 at 0.2 for
            WTTM (beside CRD) and 45 at 0.1 for TTM.
        gamma: Power of the teacher's probabilities, the inverse of a temperature. Defaults to 0.2.
        weighted: Whether samples are weighed by U (WTTM), or all alike (TTM). Defaults to True.
        w_task: Weight of the student's own losses. Defaults to 1.

    Raises:
        ValueError: A number is out of range, or the models have no softmax over the same classes.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> method = MODELS.build(dict(type='mmrkd.WTTM', w_ttm=4.0, gamma=0.2))
        >>> method.gamma
        0.2

        The student's target is the teacher, softened; the student itself is not:

        >>> import torch
        >>> from mmrkd.models.losses import transformed_matching
        >>> z_t = torch.tensor([[5.0, 0.0, -5.0]])
        >>> abs(transformed_matching(0.2 * z_t, z_t, gamma=0.2).item()) < 1e-4
        True
    """

    weights = {'w_ttm': 'loss_ttm'}

    def __init__(self, w_ttm: float = 4.0, gamma: float = 0.2, weighted: bool = True, w_task: float = 1.0) -> None:
        super().__init__()
        require_weights('WTTM', w_ttm=w_ttm, w_task=w_task)
        require_positive('WTTM', gamma=gamma)
        self.w_ttm, self.gamma, self.weighted, self.task_weight = w_ttm, gamma, weighted, w_task

    def setup(self, pair: Pair) -> None:
        """Checks that there is a softmax to compare."""
        self.reads_regions = pair.require_softmax('WTTM')

    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_ttm``."""
        z_s, z_t = self.pair.softmax_logits(student, teacher)
        return {'loss_ttm': self.w_ttm * transformed_matching(z_s, z_t, self.gamma, self.weighted)}
