"""AT: attention transfer."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mmrkd.models.losses import attention_distance
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.registry import MODELS
from mmrkd.structures import StudentView, TeacherView, on_student_grid


@MODELS.register_module()
class AttentionTransfer(DistillMethod):
    r"""Zagoruyko and Komodakis, `Paying More Attention to Attention` (arXiv 1612.03928), activation-based.

    .. math:: L = w \sum_j \mathrm{mean}\left[\left(q(F_S^j) - \mathrm{sg}(q(F_T^j))\right)^2\right]

    :math:`q` is the sum of squares over the channels, divided by its norm
    (:func:`~mmrkd.models.losses.attention_distance`), so the widths of student and teacher may differ and there is
    nothing to train.

    Gradient contract: flows into the student; the teacher is detached.

    Args:
        w_at: Weight, :math:`\beta / 2` in the paper. Defaults to 500, its value for :math:`\beta` = 1000.
        student_layers: Modules of the student whose outputs are compared. Of one that gives several maps (a backbone,
            an FPN), all are, if the teacher's counterpart gives maps of the same strides. Defaults to the backbone.
        teacher_layers: Their counterparts in the teacher, in the same order.

    Raises:
        ValueError: The layers do not pair up, or a pair has no map of the same stride.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> layers = dict(student_layers=('backbone.layer4',), teacher_layers=('backbone.layer4',))
        >>> method = MODELS.build(dict(type='mmrkd.AttentionTransfer', **layers))
        >>> method.student_taps, method.w_at
        (('backbone.layer4',), 500.0)

        Attention is blind to the scale of a map and to its number of channels:

        >>> import torch
        >>> from mmrkd.models.losses import attention_distance
        >>> feature = torch.rand(2, 3, 4, 4)
        >>> abs(attention_distance([feature], [torch.cat([5 * feature] * 2, dim=1)]).item()) < 1e-4
        True
    """

    weights = {'w_at': 'loss_at'}
    compares_classes = False

    def __init__(
        self,
        w_at: float = 500.0,
        student_layers: Sequence[str] = ('backbone',),
        teacher_layers: Sequence[str] = ('backbone',),
    ) -> None:
        super().__init__()
        if len(student_layers) != len(teacher_layers) or not student_layers:
            raise ValueError(
                f'as many layers of the teacher as of the student expected, found {list(teacher_layers)} for '
                f'{list(student_layers)}'
            )
        self.w_at = w_at
        self.student_taps, self.teacher_taps = tuple(student_layers), tuple(teacher_layers)

    def setup(self, pair: Pair) -> None:
        """Pairs the maps of each two layers by stride, on a blank image."""
        pair.require_same_pixels('AttentionTransfer')
        own = pair.student.dry_run_taps(self.student_taps)
        others = pair.teacher.adapter.dry_run_taps(self.teacher_taps)
        self.pairs = []
        for name, other in zip(self.student_taps, self.teacher_taps):
            strides = [pair.student.pixels_per_cell(f) for f in _maps(own[name])]
            counterparts = [pair.teacher.adapter.pixels_per_cell(f) for f in _maps(others[other])]
            found = _in_order(strides, counterparts)
            if not found:
                raise ValueError(
                    f'{name!r} of the student and {other!r} of the teacher give no maps of the same stride: they '
                    f'have {[*map(str, strides)]} and {[*map(str, counterparts)]}'
                )
            self.pairs += [(name, s, other, t) for s, t in found]

    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_at``."""
        own = [_maps(student.taps[name])[s] for name, s, _, _ in self.pairs]
        others = [_maps(teacher.taps[name])[t] for _, _, name, t in self.pairs]
        others = [on_student_grid(t, s) for s, t in zip(own, others)]
        return {'loss_at': self.w_at * attention_distance(own, others)}


def _in_order(strides: Sequence[Any], counterparts: list[Any]) -> list[tuple[int, int]]:
    """Pairs equal strides, several of one stride in their order: dilated backbones have them."""
    pairs, left = [], list(counterparts)
    for index, stride in enumerate(strides):
        if stride in left:
            pairs.append((index, left.index(stride)))
            left[pairs[-1][1]] = None  # taken
    return pairs


def _maps(feats: Any) -> list[Tensor]:
    return [f for f in ((feats,) if isinstance(feats, Tensor) else feats) if f.dim() == 4]
