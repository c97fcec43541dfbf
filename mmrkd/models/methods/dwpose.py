"""DWPose: features and coordinates of a pose estimator, in two stages."""

import math
from collections.abc import Sequence
from typing import Optional

from torch import Tensor, nn

from mmrkd.models.inheritance import inherit_weights
from mmrkd.models.losses import coordinate_kl, generation_error
from mmrkd.models.methods.base import DistillMethod, Pair, Phase, Progress
from mmrkd.models.methods.numbers import require_positive, require_weights
from mmrkd.models.necks import Projection
from mmrkd.registry import MODELS
from mmrkd.structures import StudentView, TeacherView

DEFAULTS = {1: dict(w_feat=7e-5, w_logits=0.1, decay=True), 2: dict(w_feat=0.0, w_logits=1.0, decay=False)}


@MODELS.register_module()
class DWPose(DistillMethod):
    r"""Yang et al., `Effective Whole-body Pose Estimation with Two-stages Distillation` (arXiv 2307.15880).

    .. math::
        L = L_{task} + d\, \frac{\alpha}{N} \sum (P(f_s) - \mathrm{sg} f_t)^2
            + d\, w\, \mathrm{KL}_{x,y}(z_t \| z_s), \qquad d = 1 - \mathrm{epoch} / \mathrm{max\_epochs}

    Stage 1: the last map of the backbone and the distributions over the bins of both axes
    (:func:`~mmrkd.models.losses.coordinate_kl`, over all joints, visible or not); both terms fade.

    Stage 2, head-aware self-distillation: the teacher is the student of stage 1. The student takes its body over and
    keeps it; a new head learns from the teacher's logits, and nothing fades.

    As mmpose ships it (``DWPoseDistiller``), whose teacher is saved with each checkpoint and sees the images as the
    student's preprocessor has them: neither is so here. P is a 1x1 convolution where the widths differ.

    Gradient contract: flows into the student and P; the teacher is detached. In stage 2 the head alone learns.

    Args:
        stage: 1 or 2, which chooses the defaults. Defaults to 1.
        w_feat: :math:`\alpha`. Defaults to 7e-5; in stage 2 to 0.
        w_logits: w. Defaults to 0.1; in stage 2 to 1.
        beta: Factor of the logits in the softmax. Defaults to that of the loss of the student's head (RTMPose: 10).
        decay: Whether d falls from 1 to 0 by epochs; otherwise it is 1. Defaults to whether it is stage 1.

    Raises:
        ValueError: A number is out of range, the heads do not give coordinates that line up, or in stage 2 the bodies
            differ.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> method = MODELS.build(dict(type='mmrkd.DWPose', stage=2))
        >>> method.w_feat, method.w_logits, method.decay
        (0.0, 1.0, False)

        Bins of x in which teacher and student differ, and bins of y in which they do not:

        >>> import math, torch
        >>> from mmrkd.models.losses import coordinate_kl
        >>> own, same = torch.zeros(1, 1, 2), torch.zeros(1, 1, 2)
        >>> teacher = torch.tensor([[[0.0, math.log(3) / 10]]])
        >>> round(coordinate_kl([own, same], [teacher, same], beta=10.0).item(), 4)
        0.1308
    """

    weights = {'w_feat': 'loss_feat', 'w_logits': 'loss_logits'}

    def __init__(
        self,
        stage: int = 1,
        w_feat: Optional[float] = None,
        w_logits: Optional[float] = None,
        beta: Optional[float] = None,
        decay: Optional[bool] = None,
    ) -> None:
        super().__init__()
        if stage not in DEFAULTS:
            raise ValueError(f'stage must be 1 or 2, found {stage!r}')
        for name, value in dict(w_feat=w_feat, w_logits=w_logits, decay=decay).items():
            setattr(self, name, DEFAULTS[stage][name] if value is None else value)
        require_weights('DWPose', w_feat=self.w_feat, w_logits=self.w_logits)
        if beta is not None:
            require_positive('DWPose', beta=beta)
        self.stage, self.beta = stage, beta
        if stage == 2:
            self.phases, self.needed_hooks = (Phase('head'),), ('PhaseHook',)

    @property
    def compares_classes(self) -> bool:
        """Whether the outputs are compared."""
        return bool(self.w_logits)

    def setup(self, pair: Pair) -> None:
        """Compares the heads, and builds P where the widths differ."""
        if self.w_logits:
            pair.require_same_layout('DWPose')
            if not pair.student.sums_outputs:
                raise ValueError(
                    'DWPose compares distributions over the bins of x and y, and the heads give none. Take models with '
                    'a SimCC or RTMCC head, or KD, which compares heatmaps, or w_logits=0.'
                )
            self.beta = self.beta or pair.student.beta
        match = pair.match.restricted([-1])
        self.place = pair.match.pairs.index(match.pairs[0])
        self.projection = Projection(match.student_channels, match.teacher_channels, match.vectors, always=False)
        self.projection.requires_grad_(bool(self.w_feat))
        if self.stage == 2:
            self._check_bodies(pair)

    def _check_bodies(self, pair: Pair) -> None:
        own, other = (
            {name: value.shape for name, value in model.state_dict().items() if not name.startswith('head.')}
            for model in (pair.student.model, pair.teacher.model)
        )
        if own != other:
            differing = sorted(name for name in {**own, **other} if own.get(name) != other.get(name))
            raise ValueError(
                'DWPose(stage=2) gives the student the body of its teacher, the student of stage 1, and theirs differ: '
                f'{", ".join(differing[:6])}. Take the config and the checkpoint of stage 1 as the teacher.'
            )

    def init_weights(self) -> None:
        """Initialises P; in stage 2 copies the teacher's body into the student."""
        super().init_weights()
        if self.stage == 2:
            parts = [name for name, _ in self.pair.student.model.named_children() if name in ('backbone', 'neck')]
            inherit_weights(self.pair.student.model, self.pair.teacher.model, parts)

    def frozen_modules(self) -> list[nn.Module]:
        """Returns all but the head, in stage 2."""
        model = self.pair.student.model
        return [m for name, m in model.named_modules() if name.startswith(('backbone', 'neck'))]

    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_feat`` and ``loss_logits``, as far as they have a weight."""
        losses, fading = {}, fading_factor(self.progress) if self.decay else 1.0
        if self.w_feat:
            (estimate,) = self.projection([student.feats[self.place]])
            losses['loss_feat'] = fading * self.w_feat * generation_error(estimate, teacher.feats[self.place])
        if self.w_logits:
            losses['loss_logits'] = fading * self.w_logits * coordinate_kl(student.outputs, teacher.outputs, self.beta)
        return losses


def fading_factor(progress: Optional[Progress]) -> float:
    """Returns 1 - epoch / max_epochs for the number of finished epochs; 1 where nothing tells how far it is."""
    if progress is None or not progress.share:
        return 1.0
    max_epochs = progress.epochs / progress.share
    return 1 - math.floor(progress.epochs + 1e-6) / max_epochs
