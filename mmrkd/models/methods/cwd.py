"""CWD: channel-wise knowledge distillation."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from mmrkd.models.losses import channel_divergence
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.methods.numbers import require_positive, require_weights
from mmrkd.models.necks import Projection
from mmrkd.registry import MODELS
from mmrkd.structures import Features, StudentView, TeacherView


@MODELS.register_module()
class CWD(DistillMethod):
    r"""Shu et al., `Channel-wise Knowledge Distillation for Dense Prediction` (arXiv 2011.13256).

    .. math:: L = w \sum_l \frac{\tau^2}{N C_l} \sum_{n,c} \mathrm{KL}(\phi(f_t^l)_{n,c} \,\|\, \phi(P(f_s^l))_{n,c})

    :math:`\phi` turns each channel of a map into a distribution over its positions
    (:func:`~mmrkd.models.losses.channel_divergence`). Levels are summed, as in mmrazor's release.

    Ours: P, a 1x1 convolution for each level, only where the widths differ (the release assumes equal ones); ``crop``.

    Gradient contract: flows into the student and P; the teacher is detached.

    Args:
        w_cwd: Weight of each level. Defaults to 10, mmrazor's for the features of detectors.
        tau: Temperature. Defaults to 1, mmrazor's for the features of detectors. (Logits of segmentation: ``w_cwd=3``,
            ``tau=4``.)
        on: ``'feats'``, the matched levels of the necks, or ``'logits'``, the classification maps of the dense heads.
        crop: Whether cells that hold nothing but padding are left out of the softmax of their image. Defaults to
            False, as in the release: they take part.

    Raises:
        ValueError: An argument is out of range, the models have no maps, or (on logits) the heads do not line up.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> method = MODELS.build(dict(type='mmrkd.CWD', w_cwd=3.0, tau=4.0, on='logits'))
        >>> method.compares_classes
        True

        What counts is where a channel is high, not how high:

        >>> import torch
        >>> from mmrkd.models.losses import channel_divergence
        >>> feature = torch.rand(2, 3, 4, 4)
        >>> abs(channel_divergence(feature, feature + 5, tau=1.0).item()) < 1e-4
        True
    """

    weights = {'w_cwd': 'loss_cwd'}
    compares_classes = False

    def __init__(
        self, w_cwd: float = 10.0, tau: float = 1.0, on: Literal['feats', 'logits'] = 'feats', crop: bool = False
    ) -> None:
        super().__init__()
        require_weights('CWD', w_cwd=w_cwd)
        require_positive('CWD', tau=tau)
        if on not in ('feats', 'logits'):
            raise ValueError(f"on must be 'feats' or 'logits', found {on!r}")
        self.w_cwd, self.tau, self.on, self.crop = w_cwd, tau, on, crop
        self.compares_classes = on == 'logits'

    def setup(self, pair: Pair) -> None:
        """Builds P where the widths differ, or compares the heads."""
        pair.require_maps('CWD')
        self.crop = self.crop and pair.student.declares_padding
        match, levels = pair.match, pair.match.student_levels
        if self.on == 'logits':
            pair.require_same_layout('CWD')
            self.strides = pair.student.logit_strides()
        else:
            self.strides = [levels[s].stride for s, _ in match.pairs]
            widths = match.student_channels, match.teacher_channels
            self.projection = Projection(*widths, per_level=True, always=False)

    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_cwd``."""
        levels = zip(*self._maps(student, teacher), self.strides)
        return {'loss_cwd': self.w_cwd * sum(self._divergence(s, t, stride, samples) for s, t, stride in levels)}

    def _maps(self, student: StudentView, teacher: TeacherView) -> tuple[Features, Features]:
        if self.on == 'feats':
            return self.projection(student.feats), teacher.feats
        adapter = self.pair.student
        return tuple(adapter.logit_maps(student.outputs)), tuple(adapter.logit_maps(teacher.outputs))

    def _divergence(self, student: Tensor, teacher: Tensor, stride: int, samples: Sequence) -> Tensor:
        if not self.crop:
            return channel_divergence(student, teacher, self.tau)
        images = []
        for index, sample in enumerate(samples):
            height, width = (-(-pixels // stride) for pixels in sample.img_shape[:2])
            images.append([f[index : index + 1, :, :height, :width] for f in (student, teacher)])
        return sum(channel_divergence(s, t, self.tau) for s, t in images) / len(images)
