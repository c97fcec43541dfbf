"""FitNets: the plain feature hint."""

from collections.abc import Sequence
from typing import Optional

from torch import Tensor

from mmrkd.models.losses import feature_mse
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.necks import ChannelStandardizer, Projection
from mmrkd.registry import MODELS
from mmrkd.structures import StudentView, TeacherView


@MODELS.register_module()
class FitNets(DistillMethod):
    r"""Hint of Romero et al., `FitNets: Hints for Thin Deep Nets` (arXiv 1412.6550): MSE to the teacher's features.

    .. math:: L = w \cdot \mathrm{MSE}(P(f_s), \mathrm{sg} f_t)

    P is one linear layer (1x1 convolution for maps), shared by all levels and trained with the student. This is what
    :class:`ERA` does without MBRNet and TWI, and so the baseline beside it. The original trains in two stages; here the
    hint accompanies the task loss throughout, as detection papers do.

    Gradient contract: flows into the student and P; the teacher is detached.

    Args:
        w_feat: Weight of the hint. Defaults to 1.
        standardize: Whether the error is measured in units of the teacher's per-channel standard deviation;
            ``None`` does so for maps and not for vectors.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> method = MODELS.build(dict(type='mmrkd.FitNets', w_feat=0.5, standardize=True))
        >>> dict(method.weights)
        {'w_feat': 'loss_feat'}
        >>> import torch
        >>> from mmrkd.models.losses import feature_mse
        >>> feature_mse([torch.zeros(1, 2, 2, 2)], [torch.full((1, 2, 2, 2), 3.0)])
        tensor(9.)
    """

    weights = {'w_feat': 'loss_feat'}
    compares_classes = False

    def __init__(self, w_feat: float = 1.0, standardize: Optional[bool] = None) -> None:
        super().__init__()
        self.w_feat = w_feat
        self.standardize = standardize

    def setup(self, pair: Pair) -> None:
        """Builds P for each pair of widths and the standardiser."""
        match = pair.match
        self.projection = Projection(match.student_channels, match.teacher_channels, match.vectors)
        standardize = self.standardize if self.standardize is not None else not match.vectors
        self.standardizer = ChannelStandardizer(match.teacher_channels) if standardize else None

    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_feat``."""
        targets = teacher.feats
        if self.standardizer is not None:
            self.standardizer.update(targets)
            targets = self.standardizer.normalize(targets)
        return {'loss_feat': self.w_feat * feature_mse(self.projection(student.feats), targets)}
