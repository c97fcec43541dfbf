"""SemiOnlineKD: Semi-Online Knowledge Distillation."""

from collections.abc import Sequence
from typing import Any, Optional

from torch import Tensor

from mmrkd.adapters.assigned import TargetCapture
from mmrkd.models.heads import CopyVariant, KnowledgeBridge, OutputMimicry, TeacherStatistics, sum_losses
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.necks import Projection
from mmrkd.models.variants import Variant
from mmrkd.registry import MODELS
from mmrkd.structures import StudentView, TeacherView, on_student_grid


@MODELS.register_module()
class SemiOnlineKD(DistillMethod):
    r"""Semi-Online Knowledge Distillation (arXiv 2111.11747).

    A :class:`~mmrkd.models.heads.KnowledgeBridge` k, a trainable copy of the teacher's upper part on the teacher's
    frozen lower features, learns from the teacher t and from the student s at once; the student learns from the bridge
    and never sees the teacher's outputs:

    .. math::
        L_{bridge} &= w_{bt} L_{task}(z_k) + w_{tb} KL(z_t \| z_k) + w_{sb} KL(sg\, z_s \| z_k) \\
        L_{student} &= w_{task} L_{task}(z_s) + w_{bs} KL(sg\, z_k \| z_s)

    With ``feature_loss`` F and a projection P of the student's features to the teacher's width, the same three ways
    again: :math:`F(f_k, sg\, f_t) + F(f_k, sg\, P(f_s)) + F(P(f_s), sg\, f_k)`.

    For a detector the task losses are its whole loss, and KL is that of
    :class:`~mmrkd.models.heads.OutputMimicry`: dense logits and boxes. This mapping is ours: the paper classifies.

    Gradient contract: each target is detached, and so are the lower features. :math:`L_{bridge}` trains the bridge,
    :math:`L_{student}` the student (and P).

    The bridge is called ``methods.<name>.bridge``: mmengine's ``paramwise_cfg=dict(custom_keys={
    'methods.semionlinekd.bridge': dict(lr_mult=...)})`` gives it a learning rate of its own.

    Args:
        split: Where the bridge begins. ``None``: with the last stage of a classifier's backbone, behind the neck of a
            detector. Otherwise the name of a module (``'layer4'``), ``'neck'`` (behind the neck) or ``'input'`` (the
            bridge is a whole model), see :func:`mmrkd.adapters.split.find_split`.
        init: ``'random'``, as the authors do, or ``'teacher'``; ``None`` is ``'random'`` for classifiers and
            ``'teacher'`` for detectors, whose students gained more by it (ours).
        w_task: Weight of the student's own losses. Defaults to 1.
        w_bridge_task: w_bt. Defaults to 1.
        w_teacher_bridge: w_tb; ``None`` is 1 for classifiers, as in the paper, and 0.2 for detectors, where a weight of
            1 starts several times as strong as the task loss (ours).
        w_student_bridge: w_sb; ``None`` as for ``w_teacher_bridge``.
        w_bridge_student: w_bs; ``None`` as for ``w_teacher_bridge``.
        tau: Temperature of the logits; ``None`` is 4 for classifiers (the paper's) and 1 for detectors (ours).
        w_box: Weight of the boxes, relative to the logits. Defaults to 1.
        tau_box: Temperature of the box distributions of GFL-type heads. Defaults to 10.
        feature_loss: Config of a loss that takes ``(estimates, targets)``, a sequence over levels each, for example
            ``dict(type='mmrkd.FeatureMSELoss', loss_weight=1.0)``. Defaults to ``None``.
        teacher_bn: ``'eval'``; ``'train'`` lets this method see a teacher that normalises by the batch and whose
            running statistics drift, as in the authors' code. Part of the method's state; the teacher stays as it is.

    Raises:
        ValueError: An argument is out of range, or teacher, bridge and student do not line up.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> hint = dict(type='mmrkd.FeatureMSELoss', loss_weight=0.5)
        >>> method = MODELS.build(dict(type='mmrkd.SemiOnlineKD', split='layer4', feature_loss=hint))
        >>> method.split, method.w_feature
        ('layer4', 0.5)
    """

    weights = {
        'w_bridge_task': 'loss_bridge_task',
        'w_teacher_bridge': ('loss_teacher_bridge', 'loss_teacher_bridge_box'),
        'w_student_bridge': ('loss_student_bridge', 'loss_student_bridge_box'),
        'w_bridge_student': ('loss_bridge_student', 'loss_bridge_student_box'),
        'w_feature': '*_feat',
    }

    def __init__(
        self,
        split: Optional[str] = None,
        init: Optional[str] = None,
        w_task: float = 1.0,
        w_bridge_task: float = 1.0,
        w_teacher_bridge: Optional[float] = None,
        w_student_bridge: Optional[float] = None,
        w_bridge_student: Optional[float] = None,
        tau: Optional[float] = None,
        w_box: float = 1.0,
        tau_box: float = 10.0,
        feature_loss: Optional[dict] = None,
        teacher_bn: str = 'eval',
    ) -> None:
        super().__init__()
        if teacher_bn not in ('eval', 'train'):
            raise ValueError(f"teacher_bn must be 'eval' or 'train', found {teacher_bn!r}")
        self.split, self.init, self.teacher_bn = split, init, teacher_bn
        self.task_weight, self.w_bridge_task = w_task, w_bridge_task
        self.w_teacher_bridge, self.w_student_bridge = w_teacher_bridge, w_student_bridge
        self.w_bridge_student = w_bridge_student
        self.mimicry_cfg = dict(tau=tau, w_box=w_box, tau_box=tau_box)
        self.feature_loss = None if feature_loss is None else MODELS.build(feature_loss)

    @property
    def w_feature(self) -> float:
        """Weight of the terms on features, that of ``feature_loss``."""
        return 0.0 if self.feature_loss is None else getattr(self.feature_loss, 'loss_weight', 1.0)

    def setup(self, pair: Pair) -> None:
        """Cuts the teacher, builds the bridge and the projections of the student's features."""
        pair.require_ground_truth('SemiOnlineKD')
        self._choose_defaults(pair.match.vectors)
        if any((self.w_teacher_bridge, self.w_student_bridge, self.w_bridge_student)):
            pair.require_same_classes('SemiOnlineKD')
            pair.require_same_layout('SemiOnlineKD')
            self.mimicry = OutputMimicry(pair.student, **self.mimicry_cfg)
        if self.teacher_bn == 'train':
            self.statistics = TeacherStatistics(pair.teacher)
        split = self.split or (None if pair.match.vectors else 'neck')
        self.bridge = KnowledgeBridge(pair, split, self.init, self.statistics)
        self.teacher_taps = self.bridge.taps
        if self.feature_loss is not None:
            self._setup_features(pair)

    def _choose_defaults(self, vectors: bool) -> None:
        self.init = self.init or ('random' if vectors else 'teacher')
        for name in ('w_teacher_bridge', 'w_student_bridge', 'w_bridge_student'):
            if getattr(self, name) is None:
                setattr(self, name, 1.0 if vectors else 0.2)

    def _setup_features(self, pair: Pair) -> None:
        if not any(True for name, _ in self.bridge.model.named_parameters() if name.startswith(('backbone', 'neck'))):
            raise ValueError(
                f'feature_loss needs a bridge with features of its own, but split={self.split!r} leaves it the head '
                "alone, on the teacher's features. Begin the bridge lower, for example with split='layer4'."
            )
        match = pair.match
        self.projection = Projection(match.student_channels, match.teacher_channels, match.vectors, per_level=True)

    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns, weighted, ``loss_bridge_task`` and one term for each way from a target to what learns from it.

        These are ``loss_teacher_bridge``, ``loss_student_bridge`` and ``loss_bridge_student``, for detectors also with
        ``_box`` behind, with a feature loss also with ``_feat``.
        """
        feats = self.bridge.extract_like(teacher)
        capture = TargetCapture(reads=False, once=teacher.once)  # the bridge's head is the teacher's
        task, outputs = self.bridge.adapter.task_loss(feats, teacher.inputs, samples, capture)
        losses = {'loss_bridge_task': self.w_bridge_task * sum_losses(task)}
        for way, weight, learns, target in (
            ('teacher_bridge', self.w_teacher_bridge, outputs, lambda: teacher.outputs),  # asks the teacher's head
            ('student_bridge', self.w_student_bridge, outputs, lambda: student.outputs),
            ('bridge_student', self.w_bridge_student, student.outputs, lambda: outputs),
        ):
            if weight:
                losses.update(self.mimicry(f'loss_{way}', weight, learns, target(), samples))
        if self.feature_loss is not None:
            losses.update(self._feature_losses(student, teacher, feats))
        return losses

    def _feature_losses(self, student: StudentView, teacher: TeacherView, feats: Any) -> dict[str, Tensor]:
        own = self.bridge.adapter.features(feats)
        match = self.pair.match
        bridge = [on_student_grid(own[t], f, resize=match.resize) for (_, t), f in zip(match.pairs, student.feats)]
        estimates = self.projection(student.feats)
        return {
            'loss_teacher_bridge_feat': self.feature_loss(bridge, teacher.feats),
            'loss_student_bridge_feat': self.feature_loss(bridge, [e.detach() for e in estimates]),
            'loss_bridge_student_feat': self.feature_loss(estimates, [b.detach() for b in bridge]),
        }

    def prediction_variants(self) -> list[Variant]:
        """Returns ``bridge``: the teacher's lower part and the bridge, a plain model of the teacher's config."""
        return [CopyVariant('bridge', self.bridge, self.pair.teacher.cfg, self.pair)]
