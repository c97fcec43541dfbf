"""GDKD: decoupled distillation between and inside groups of classes."""

from collections.abc import Sequence
from typing import Optional

from torch import Tensor

from mmrkd.models.losses import grouped_kl, ranked_groups, standardize_logits
from mmrkd.models.losses.decoupled import DIRECTIONS
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.methods.numbers import require_positive, require_weights
from mmrkd.registry import MODELS
from mmrkd.structures import StudentView, TeacherView

STRATEGIES = ('best', 'worst')


@MODELS.register_module()
class GDKD(DistillMethod):
    r"""`Generalised decoupled knowledge distillation` (arXiv 2512.04625).

    .. math:: L = w_{task} L_{task}(z_s) + w_0\, high + w_1\, top + w_2\, other

    The classes of a sample are divided by the teacher's ranking; ``high`` compares the probabilities of the groups,
    ``top`` and ``other`` what lies inside them (:func:`~mmrkd.models.losses.grouped_kl`). KD has the weights
    :math:`(1, P_t(U_1), P_t(U_2))`. No label is read, so images may be mixed; ``k=1`` is :class:`DKD` on the teacher's
    first choice.

    .. code:: text

        groups=2    [ 1 .. k       | k+1 .. K ]        top: 1 .. k
        groups=3    [ 1 | 2 .. k   | k+1 .. K ]        top: 2 .. k (GDKD3)

    The release raises all terms over the first epochs (CIFAR 20, ImageNet 1), see :class:`DKD`, as which it compares
    two-stage detectors. Its form for the distributions of box sides is not here.

    Gradient contract: flows into the student; the teacher is detached.

    Args:
        k: Classes in the upper group, ``groups - 1 <= k < K``. Defaults to 5, as in the release; GDKD3 has 4 there.
        weights: :math:`(w_0, w_1, w_2)`. ``None`` is (1, 1, 8) for classifiers, those of the release's library (on
            CIFAR-100 it sets the last two by pair; on ImageNet they are (0.5, 1, 1) for ResNet-18, (0.5, 2, 2) for
            MobileNet-V1), and (1, 0.125, 0.25) for detectors.
        tau: Temperature. ``None`` is 4 for classifiers, the release's on CIFAR-100 (on ImageNet it is 1), and 1 for
            detectors.
        groups: 2 or 3. Defaults to 2.
        strategy: ``'best'``: the ranking begins with the most likely class; ``'worst'``: with the least likely.
            Defaults to ``'best'``.
        kl: Direction of ``top`` and ``other``: ``'forward'``, ``'reverse'`` or ``'both'`` (half the sum). Defaults to
            ``'forward'``.
        w_task: Weight of the student's own losses. Defaults to 1.
        standardize_logits: Whether both logits are standardised first (Sun et al., arXiv 2403.01427). Defaults to
            False.

    Raises:
        ValueError: A number is out of range (a group would be empty), the models are no classifiers, or their heads do
            not line up or score classes independently.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> method = MODELS.build(dict(type='mmrkd.GDKD', k=2, weights=(1.0, 1.0, 4.0)))
        >>> method.w_high, method.w_top, method.w_other
        (1.0, 1.0, 4.0)

        The teacher's ranking decides which classes stand together:

        >>> import torch
        >>> from mmrkd.models.losses import ranked_groups
        >>> top, other = ranked_groups(torch.tensor([[3.0, 0.0, 2.0, 1.0]]), k=2)
        >>> top.tolist(), other.tolist()
        ([[True, False, True, False]], [[False, True, False, True]])
    """

    weights = {'w_high': 'loss_high', 'w_top': 'loss_top', 'w_other': 'loss_other'}

    def __init__(
        self,
        k: int = 5,
        weights: Optional[Sequence[float]] = None,
        tau: Optional[float] = None,
        groups: int = 2,
        strategy: str = 'best',
        kl: str = 'forward',
        w_task: float = 1.0,
        standardize_logits: bool = False,
    ) -> None:
        super().__init__()
        self.given = weights is not None
        self._set_weights(weights or (1.0, 1.0, 8.0))
        if strategy not in STRATEGIES or kl not in DIRECTIONS or groups not in (2, 3):
            raise ValueError(
                f'GDKD: groups must be 2 or 3, strategy one of {STRATEGIES}, kl one of {DIRECTIONS}, found '
                f'{groups}, {strategy!r} and {kl!r}'
            )
        if k < groups - 1:
            raise ValueError(f'GDKD: k must be at least {groups - 1} for {groups} groups, found {k}')
        require_weights('GDKD', w_high=self.w_high, w_top=self.w_top, w_other=self.w_other, w_task=w_task)
        require_positive('GDKD', tau=4.0 if tau is None else tau)
        self.k, self.tau, self.groups, self.strategy, self.kl = k, tau, groups, strategy, kl
        self.task_weight, self.standardize_logits = w_task, standardize_logits

    def setup(self, pair: Pair) -> None:
        """Checks that there is a softmax to compare, over more than k classes, and chooses what was left to it."""
        self.reads_regions = pair.require_softmax('GDKD')
        if self.reads_regions and not self.given:
            self._set_weights((1.0, 0.125, 0.25))
        self.tau = self.tau or (1.0 if self.reads_regions else 4.0)
        classes = pair.student.num_classes
        if classes is not None and self.k >= classes:
            raise ValueError(f'GDKD: k must be less than the number of classes, found k={self.k} for {classes} classes')

    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_high``, ``loss_top`` and ``loss_other``."""
        z_s, z_t = self.pair.softmax_logits(student, teacher)
        if self.standardize_logits:
            z_s, z_t = standardize_logits(z_s), standardize_logits(z_t)
        groups = ranked_groups(z_t, self.k, self.groups, self.strategy == 'best')
        high, *_, top, other = grouped_kl(z_s, z_t, groups, self.tau, self.kl)
        return {'loss_high': self.w_high * high, 'loss_top': self.w_top * top, 'loss_other': self.w_other * other}

    def _set_weights(self, weights: Sequence[float]) -> None:
        if len(weights) != 3:
            raise ValueError(f'GDKD: three weights (high, top, other) expected, found {list(weights)}')
        self.w_high, self.w_top, self.w_other = weights
