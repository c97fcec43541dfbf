"""PKD: Pearson's correlation between features."""

from collections.abc import Sequence
from typing import Optional

from mmengine.logging import print_log
from torch import Tensor

from mmrkd.models.losses import pearson_distance
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.methods.numbers import require_positive, require_weights
from mmrkd.models.necks import Projection
from mmrkd.registry import MODELS
from mmrkd.structures import StudentView, TeacherView

LEAST_VECTORS = 8  # below, the deviation of a channel over the images of a batch says little


@MODELS.register_module()
class PKD(DistillMethod):
    r"""Cao et al., `PKD: General Distillation Framework for Object Detectors via Pearson Correlation Coefficient`.

    .. math:: L = w \sum_l \frac{1}{2} \mathrm{mean}\left[(s(P(f_s^l)) - s(f_t^l))^2\right]

    arXiv 2207.02039. s standardises each channel by its values in the batch
    (:func:`~mmrkd.models.losses.pearson_distance`), so neither the scale nor the offset of a feature matters, and
    detectors of unlike families can be paired. Levels are summed.

    Where the grids differ, the release brings the student to the teacher's (``resize_stu``) or the other way round;
    here it is the second way, and ``resize='bilinear'`` of the distiller allows it.

    Ours: P, a 1x1 convolution for each level, only where the widths differ (the release assumes equal ones); pooled
    features, whose channels have their statistics over the images of the batch. A batch of fewer than 8 of them is left
    out.

    Gradient contract: flows into the student, through its statistics too, and into P; the teacher is detached.

    Args:
        w_pkd: Weight of each level. Defaults to 10, as released for one-stage students; 6 for two-stage ones and for
            Mask R-CNN-Swin teaching RetinaNet.
        levels: How many of the matched levels, finest first, are compared; ``None``: all. Defaults to 4, as released
            (the coarsest of the five is left out).

    Raises:
        ValueError: An argument is out of range.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> method = MODELS.build(dict(type='mmrkd.PKD', w_pkd=6.0, levels=4))
        >>> method.w_pkd
        6.0

        Neither scale nor offset of a channel matters:

        >>> import torch
        >>> from mmrkd.models.losses import pearson_distance
        >>> feature = torch.rand(2, 3, 4, 4)
        >>> abs(pearson_distance(feature, 3 * feature + 1).item()) < 1e-4
        True
    """

    weights = {'w_pkd': 'loss_pkd'}
    compares_classes = False

    def __init__(self, w_pkd: float = 10.0, levels: Optional[int] = 4) -> None:
        super().__init__()
        require_weights('PKD', w_pkd=w_pkd)
        require_positive('PKD', levels=1 if levels is None else levels)
        self.w_pkd, self.levels = w_pkd, levels
        self.told = False

    def setup(self, pair: Pair) -> None:
        """Builds P where the widths differ."""
        match = pair.match
        widths = match.student_channels[: self.levels], match.teacher_channels[: self.levels]
        self.projection = Projection(*widths, match.vectors, per_level=True, always=False)

    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_pkd``."""
        feats = self.projection(student.feats[: self.levels])
        if self.pair.match.vectors and len(feats[0]) < LEAST_VECTORS:
            return {'loss_pkd': self._left_out(feats[0])}
        return {'loss_pkd': self.w_pkd * sum(pearson_distance(s, t) for s, t in zip(feats, teacher.feats))}

    def _left_out(self, feat: Tensor) -> Tensor:
        """A loss of 0 that still reaches every parameter, and a word about it."""
        if not self.told:
            print_log(
                f'PKD left out a batch of {len(feat)} images: it compares how pooled features vary over a batch, and '
                f'needs at least {LEAST_VECTORS}. Take larger batches.',
                'current',
                30,
            )
            self.told = True
        return feat.float().sum() * 0
