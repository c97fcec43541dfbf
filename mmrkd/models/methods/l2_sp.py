"""L2-SP: a student that is tuned stays near the weights that it started from."""

from collections.abc import Sequence
from typing import Optional, Union

import torch
from torch import Tensor

from mmrkd.models.inheritance import split_parts
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.methods.numbers import require_weights
from mmrkd.registry import MODELS
from mmrkd.structures import StudentView, TeacherView


@MODELS.register_module()
class L2SP(DistillMethod):
    r"""Li et al., `Explicit inductive bias for transfer learning` (arXiv 1802.01483), a control for transfer.

    .. math:: L = L_{task}(z_s) + w\, \mathrm{mean}_j (\theta_j - \theta^0_j)^2

    :math:`\theta^0` are the teacher's parameters of the same names and shapes, from which ``init_student`` starts the
    student. The paper sums where this averages over all values (ours), so that w does not depend on the size; the decay
    of the other weights is the optimiser's. The teacher is never run.

    Gradient contract: flows into the student.

    Args:
        w_sp: Weight. Defaults to 1.
        parts: Parts of the model (``'backbone'``, ``'neck'``) that are held, as in ``init_student``. Defaults to
            ``'backbone'``.

    Raises:
        ValueError: The weight is negative, there is no teacher, or none of its parameters fits.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> method = MODELS.build(dict(type='mmrkd.L2SP', w_sp=0.1, parts='backbone,neck'))
        >>> method.needs_teacher, method.w_sp
        (False, 0.1)
    """

    weights = {'w_sp': 'loss_sp'}
    needs_teacher = False
    compares_classes = False

    def __init__(self, w_sp: float = 1.0, parts: Union[str, Sequence[str]] = 'backbone') -> None:
        super().__init__()
        require_weights('L2SP', w_sp=w_sp)
        self.w_sp, self.parts = w_sp, parts

    def setup(self, pair: Pair) -> None:
        """Finds the parameters that have a counterpart in the teacher."""
        if pair.teacher is None:
            raise ValueError('L2SP holds the student to the weights of a teacher, and there is none')
        own, others = (dict(model.named_parameters()) for model in (pair.student.model, pair.teacher.model))
        parts = tuple(f'{part}.' for part in split_parts(self.parts))
        self.names = [n for n, p in own.items() if n.startswith(parts) and n in others and others[n].shape == p.shape]
        if not self.names:
            raise ValueError(
                f'L2SP: no parameter of {list(parts)} of the student has one of the same name and shape in the '
                'teacher. Take a teacher of the same architecture, or other parts.'
            )

    def losses(self, student: StudentView, teacher: Optional[TeacherView], samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_sp``."""
        own, start = (dict(model.named_parameters()) for model in (self.pair.student.model, self.pair.teacher.model))
        squared = [(own[name].float() - start[name].float()).square().sum() for name in self.names]
        count = sum(own[name].numel() for name in self.names)
        return {'loss_sp': self.w_sp * torch.stack(squared).sum() / count}
