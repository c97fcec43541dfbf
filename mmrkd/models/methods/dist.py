"""DIST: relations of predictions."""

from collections.abc import Sequence
from typing import Any, Optional

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmrkd.models.losses import relation_distance
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.methods.numbers import require_positive, require_weights
from mmrkd.registry import MODELS
from mmrkd.structures import StudentView, TeacherView

COLUMNS = ('anchors_classes', 'classes')


@MODELS.register_module()
class DIST(DistillMethod):
    r"""Huang et al., `Knowledge Distillation from A Stronger Teacher` (arXiv 2205.10536).

    .. math:: L = w_{task} L_{task}(z_s) + \beta\, inter + \gamma\, intra

    The correlation of predictions and not their values (:func:`~mmrkd.models.losses.relation_distance`): between the
    classes of a sample, and between the samples of a class. A stronger teacher differs from its student by more than it
    can match, and correlation is blind to scale and shift. ``intra`` sees the batch of this process, as in the release;
    with one image there is nothing to correlate and the term is left out.

    Dense heads with sigmoid scores, as the authors' detection code has it: each position of a level is a row, both
    terms are summed over levels. Dense softmax heads are refused. Of two-stage detectors the second stage is compared
    (the first of a cascade), with the regions that the student sampled as rows, as the authors do.

    Gradient contract: flows into the student; the teacher is detached.

    Args:
        beta: Weight of ``inter``. ``None`` is the release's: 2 for classifiers, 1 for detectors.
        gamma: Weight of ``intra``. ``None`` likewise.
        tau: Temperature. Defaults to 1, as on ImageNet; on CIFAR-100 the release has 4, on detectors none.
        columns: On a dense head with A anchors at a position: ``'anchors_classes'`` makes ``A * K`` columns, as the
            release does, ``'classes'`` a row for each anchor (ours). Defaults to ``'anchors_classes'``.
        w_task: Weight of the student's own losses. Defaults to 1.

    Raises:
        ValueError: A number is out of range, the heads do not line up, a classifier scores classes independently, or a
            one-stage detector has a softmax.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> method = MODELS.build(dict(type='mmrkd.DIST', beta=1.0, gamma=1.0))
        >>> method.beta, method.gamma, method.tau
        (1.0, 1.0, 1.0)

        A teacher that is surer of the same order of classes is no further away than correlation says:

        >>> import torch
        >>> from mmrkd.models.losses import relation_distance
        >>> z = torch.tensor([[0.0, 1.0, 2.0], [2.0, 0.0, 1.0]])
        >>> inter, intra = relation_distance(z, 2 * z)
        >>> bool(0 < inter < 0.1 and 0 < intra < 0.1)
        True
    """

    weights = {'beta': 'loss_inter', 'gamma': 'loss_intra'}

    def __init__(
        self,
        beta: Optional[float] = None,
        gamma: Optional[float] = None,
        tau: float = 1.0,
        columns: str = 'anchors_classes',
        w_task: float = 1.0,
    ) -> None:
        super().__init__()
        self.defaults = [name for name, weight in (('beta', beta), ('gamma', gamma)) if weight is None]
        self.beta, self.gamma = (2.0 if weight is None else weight for weight in (beta, gamma))
        require_weights('DIST', beta=self.beta, gamma=self.gamma, w_task=w_task)
        require_positive('DIST', tau=tau)
        if columns not in COLUMNS:
            raise ValueError(f'columns must be one of {COLUMNS}, found {columns!r}')
        self.tau, self.columns, self.task_weight = tau, columns, w_task
        self.warned = False

    def setup(self, pair: Pair) -> None:
        """Checks that the heads line up, and chooses the weights that were left to it."""
        self.dense = pair.student.task != 'classification'
        if not self.dense:
            pair.require_exclusive_classes('DIST')
            return
        for name in self.defaults:
            setattr(self, name, 1.0)
        if pair.student.two_stage or pair.teacher.adapter.two_stage:
            self.reads_regions, self.dense = pair.require_softmax('DIST'), False
            return
        pair.require_same_layout('DIST')
        if not pair.student.sigmoid:
            raise ValueError('DIST on a dense head needs independent scores (sigmoid), found a softmax. Take KD.')

    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_inter`` and ``loss_intra``."""
        if self.dense:
            rows = [self._rows(view.outputs) for view in (student, teacher)]
        else:
            rows = [[logits] for logits in self.pair.softmax_logits(student, teacher)]
        if len(rows[0][0]) == 1 and self.gamma and not self.warned:
            self.warned = True
            print_log('DIST: loss_intra is left out of batches of one image: there is nothing to correlate', 'current')
        terms = [relation_distance(z_s, z_t, self.tau, self.dense) for z_s, z_t in zip(*rows)]
        inter, intra = (torch.stack(levels).sum() for levels in zip(*terms))
        return {'loss_inter': self.beta * inter, 'loss_intra': self.gamma * intra}

    def _rows(self, outputs: Any) -> list[Tensor]:
        """Returns the logits ``(rows, columns)`` of each level of a dense head."""
        adapter = self.pair.student
        if self.columns == 'classes':
            return adapter.logits(outputs)
        return [level.movedim(1, -1).flatten(0, -2) for level in adapter.logit_maps(outputs)]
