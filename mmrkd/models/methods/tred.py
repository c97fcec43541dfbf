"""TRED: a student keeps to that part of a source model's features which matters for its own task."""

from collections.abc import Sequence
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrkd.models.losses import feature_mse, median_distance, squared_mmd
from mmrkd.models.losses.disentanglement import SCALES
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.methods.last_map import last_map, map_strides
from mmrkd.models.methods.numbers import require_weights
from mmrkd.models.methods.ramp import ramp_factor
from mmrkd.models.necks import ChannelStandardizer, Disentangler, Projection
from mmrkd.models.necks.disentangler import PARTS
from mmrkd.registry import MODELS
from mmrkd.structures import StudentView, TeacherView, on_student_grid

BACKBONE = 'backbone'


@MODELS.register_module()
class TRED(DistillMethod):
    r"""`Target-awareness representation disentanglement` (arXiv 2010.08532). Transfer of classifiers. A reconstruction.

    The "teacher" is a source model, mostly of other classes, from whose weights the student starts
    (``init_student='backbone'``). Of its features f of a target image a disentangler D
    (:class:`~mmrkd.models.necks.Disentangler`) sets apart what matters for the target task, and the student, while it
    is tuned, keeps to that part alone:

    .. math::
        L_{dis} = CE(C(pool f^+), y) + w_{rec}\, \mathrm{mean}(f^+ + f^- - f)^2 - w_{mmd} MMD^2(pool f^+, pool f^-)

        L = L_{task}(z_s) + w_{reg}\, \mathrm{mean} (P(f_s) - \mathrm{sg} f^+)^2

    No code is public. The paper's: to disentangle first and to regularise towards one part, by maximising the MMD.
    Everything else is ours: the gate, C (a linear layer), P (a 1x1 convolution, only where widths differ), the kernels
    (:func:`~mmrkd.models.losses.squared_mmd`, widths of 0.5, 1 and 2 median distances), the standardisation by the
    channels of :math:`f^+`, all weights, the ramp of the regulariser. Minimising the mutual information is not here.

    Gradient contract: :math:`L_{dis}` flows into D and C and nowhere else, the regulariser into the student and P.

    Args:
        w_reg: Weight of the regulariser. Defaults to 1. At 0 the method is off: nothing reads what D learns.
        w_mmd: Weight of the discrepancy. Defaults to 0.1. It is bounded by 2, so that maximising it is safe.
        w_rec: Weight of the reconstruction, which ``parts='gate'`` does not need. Defaults to 1.
        parts: ``'gate'``: :math:`f^+ = g f, f^- = (1 - g) f`; ``'two'``: two nets. Defaults to ``'gate'``.
        begin: Epochs after which the regulariser rises, to be full after twice as many; D and C learn from the start.
            Defaults to a tenth of the training.
        standardize: Whether features are compared in units of the per-channel standard deviation of :math:`f^+`.
            Defaults to True.

    Raises:
        ValueError: A number or name is out of range, the models are no classifiers, a backbone gives no map, or the
            maps have other strides. In training: an image has no label.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> method = MODELS.build(dict(type='mmrkd.TRED', w_reg=1.0, parts='gate'))
        >>> method.student_taps
        ('backbone',)

        Two batches of one distribution have no discrepancy:

        >>> import torch
        >>> from mmrkd.models.losses import squared_mmd
        >>> batch = torch.rand(8, 3)
        >>> abs(squared_mmd(batch, batch).item()) < 1e-4
        True
    """

    weights = {'w_reg': 'loss_reg'}
    compares_classes = False
    needed_hooks = ('PhaseHook',)  # which says when the regulariser is to rise

    def __init__(
        self,
        w_reg: float = 1.0,
        w_mmd: float = 0.1,
        w_rec: float = 1.0,
        parts: str = 'gate',
        begin: Optional[float] = None,
        standardize: bool = True,
    ) -> None:
        super().__init__()
        require_weights('TRED', w_reg=w_reg, w_mmd=w_mmd, w_rec=w_rec, begin=begin or 0)
        if parts not in PARTS:
            raise ValueError(f'TRED: parts must be one of {PARTS}, found {parts!r}')
        self.w_reg, self.w_mmd, self.w_rec = w_reg, w_mmd, w_rec
        self.parts, self.begin, self.standardize = parts, begin, standardize
        self.student_taps = self.teacher_taps = (BACKBONE,)

    def setup(self, pair: Pair) -> None:
        """Checks that the last maps of both backbones lie on one grid, and builds D, C and P."""
        if pair.student.task != 'classification':
            raise ValueError(f'TRED transfers classifiers, found models for {pair.student.task}')
        ((width, stride),) = map_strides('TRED', pair.student, self.student_taps)
        ((channels, other),) = map_strides('TRED', pair.teacher.adapter, self.teacher_taps)
        self.same_stride = stride == other and pair.teacher.input_size is None
        if not self.same_stride and pair.match.resize is None:
            raise ValueError(
                f"TRED compares the last maps of the two backbones, but a cell of the student's is {stride} pixels "
                f"wide, one of the source model's {other}: allow maps to be interpolated (resize='bilinear' of the "
                'distiller), or take a source model of the same resolution'
            )
        self.disentangler = Disentangler(channels, self.parts)
        self.classifier = nn.Linear(channels, pair.student.num_classes)
        self.projection = Projection([width], [channels], always=False)
        self.standardizer = ChannelStandardizer([channels]) if self.standardize else None

    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_reg``, and for D and C ``loss_relevant``, ``loss_apart`` and, of two nets, ``loss_rec``."""
        own, feat = last_map(student.taps[BACKBONE]), last_map(teacher.taps[BACKBONE])
        relevant, rest = self.disentangler(feat)
        losses = self._disentangling(feat, relevant, rest, samples)
        target = on_student_grid(relevant.detach(), own, self.same_stride, self.pair.match.resize)
        estimates, targets = self.projection([own]), (target,)
        if self.standardizer is not None:
            self.standardizer.update(targets)
            estimates, targets = (self.standardizer.normalize(feats) for feats in (estimates, targets))
        factor = ramp_factor(self.progress, self.begin)
        losses['loss_reg'] = factor * self.w_reg * feature_mse(estimates, targets)
        return losses

    def _disentangling(self, feat: Tensor, relevant: Tensor, rest: Tensor, samples: Sequence) -> dict[str, Tensor]:
        scores = self.pair.student.target_scores(samples).to(feat.device)
        pooled, pooled_relevant, pooled_rest = (f.mean(dim=(2, 3)) for f in (feat, relevant, rest))
        predicted = self.classifier(pooled_relevant)
        scores = scores.to(predicted.float())
        widths = torch.tensor(SCALES, device=feat.device) * median_distance(pooled)
        apart = squared_mmd(pooled_relevant, pooled_rest, widths)
        losses = dict(loss_relevant=F.cross_entropy(predicted.float(), scores), loss_apart=-self.w_mmd * apart)
        if self.parts == 'two':
            losses['loss_rec'] = self.w_rec * F.mse_loss((relevant + rest).float(), feat.float())
        losses['relevant_accuracy'] = (predicted.argmax(dim=1) == scores.argmax(dim=1)).float().mean()
        return losses
