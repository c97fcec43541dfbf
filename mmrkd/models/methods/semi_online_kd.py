"""SemiOnlineKD: Semi-Online Knowledge Distillation."""

from collections.abc import Sequence
from typing import Any, Optional

import torch
from torch import Tensor

from mmrkd.models.heads import KnowledgeBridge, OutputMimicry, TeacherStatistics, sum_losses
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.registry import MODELS
from mmrkd.structures import Features, StudentView, TeacherView, resized


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

    The bridge is called ``methods.<index>.bridge``: mmengine's ``paramwise_cfg=dict(custom_keys={'methods.0.bridge':
    dict(lr_mult=...)})`` gives it a learning rate of its own.

    Args:
        split: Where the bridge begins. ``None``: with the last stage of a classifier's backbone, behind the neck of a
            detector. Otherwise the name of a module (``'layer4'``), ``'neck'`` (behind the neck) or ``'input'`` (the
            bridge is a whole model), see :func:`mmrkd.adapters.split.find_split`.
        init: ``'random'`` (default, as the authors do) or ``'teacher'``.
        w_task: Weight of the student's own losses. Defaults to 1.
        w_bridge_task: w_bt. Defaults to 1.
        w_teacher_bridge: w_tb. Defaults to 1.
        w_student_bridge: w_sb. Defaults to 1.
        w_bridge_student: w_bs. Defaults to 1.
        tau: Temperature of the logits; ``None`` is 4 for classifiers (the paper's) and 1 for detectors (ours).
        w_box: Weight of the boxes, relative to the logits. Defaults to 1.
        tau_box: Temperature of the box distributions of GFL-type heads. Defaults to 10.
        feature_loss: Config of a loss that takes ``(estimates, targets)``, a sequence over levels each, for example
            ``dict(type='mmrkd.FeatureMSELoss', loss_weight=1.0)``. Defaults to ``None``.
        teacher_bn: ``'eval'``; ``'train'`` normalises by the batch in the teacher, whose running statistics then drift
            as in the authors' code. They are part of the method's state.

    Raises:
        ValueError: An argument is out of range, or teacher, bridge and student do not line up.
    """

    variants = ('bridge',)

    def __init__(
        self,
        split: Optional[str] = None,
        init: str = 'random',
        w_task: float = 1.0,
        w_bridge_task: float = 1.0,
        w_teacher_bridge: float = 1.0,
        w_student_bridge: float = 1.0,
        w_bridge_student: float = 1.0,
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
    def active(self) -> bool:
        """Whether any term but the student's own has a weight."""
        return self.feature_loss is not None or any((self.w_bridge_task, *self._logit_weights))

    @property
    def _logit_weights(self) -> tuple[float, float, float]:
        return self.w_teacher_bridge, self.w_student_bridge, self.w_bridge_student

    def setup(self, pair: Pair) -> None:
        """Cuts the teacher, builds the bridge and the projections of the student's features."""
        pair.require_ground_truth('SemiOnlineKD')
        if any(self._logit_weights):
            pair.require_same_layout('SemiOnlineKD')
        split = self.split or (None if pair.match.pooled else 'neck')
        self.bridge = KnowledgeBridge(pair.teacher, split, self.init)
        self.teacher_taps = self.bridge.taps
        self.mimicry = OutputMimicry(pair.student, **self.mimicry_cfg)
        self.match = pair.match
        if self.teacher_bn == 'train':
            pair.teacher.batch_statistics = True
            self.statistics = TeacherStatistics(pair.teacher)
        if self.feature_loss is not None:
            self._setup_features(pair)

    def _setup_features(self, pair: Pair) -> None:
        if not any(True for name, _ in self.bridge.model.named_parameters() if name.startswith(('backbone', 'neck'))):
            raise ValueError(
                f'feature_loss needs a bridge with features of its own, but split={self.split!r} leaves it the head '
                "alone, on the teacher's features. Begin the bridge lower, for example with split='layer4'."
            )
        layer = torch.nn.Linear if pair.match.pooled else lambda i, o: torch.nn.Conv2d(i, o, 1)
        widths = zip(pair.match.student_channels, pair.match.teacher_channels)
        self.projections = torch.nn.ModuleList(layer(*width) for width in widths)

    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns, weighted, ``loss_bridge_task`` and one term for each way from a target to what learns from it.

        These are ``loss_teacher_bridge``, ``loss_student_bridge`` and ``loss_bridge_student``, for detectors also with
        ``_box`` behind, with a feature loss also with ``_feat``.
        """
        feats = self.bridge.extract_like(teacher)
        task, outputs = self.bridge.adapter.task_loss(feats, teacher.inputs, samples)
        losses = {'loss_bridge_task': self.w_bridge_task * sum_losses(task)}
        if self.w_teacher_bridge:
            losses.update(self.mimicry('loss_teacher_bridge', self.w_teacher_bridge, outputs, teacher.outputs))
        losses.update(self.mimicry('loss_student_bridge', self.w_student_bridge, outputs, student.outputs))
        losses.update(self.mimicry('loss_bridge_student', self.w_bridge_student, student.outputs, outputs))
        if self.feature_loss is not None:
            losses.update(self._feature_losses(student, teacher, feats))
        if self.teacher_bn == 'train':
            self.statistics.keep()
        return losses

    def _feature_losses(self, student: StudentView, teacher: TeacherView, feats: Any) -> dict[str, Tensor]:
        own = self.bridge.adapter.features(feats)
        bridge = [resized(own[t], f, self.match.resize) for (_, t), f in zip(self.match.pairs, student.feats)]
        estimates = [projection(f) for projection, f in zip(self.projections, student.feats)]
        return {
            'loss_teacher_bridge_feat': self.feature_loss(bridge, teacher.feats),
            'loss_student_bridge_feat': self.feature_loss(bridge, [e.detach() for e in estimates]),
            'loss_bridge_student_feat': self.feature_loss(estimates, [b.detach() for b in bridge]),
        }

    def predict(self, variant: str, feats: Features, all_feats: Any, inputs: Tensor, samples: Sequence) -> Sequence:
        """Predicts as ``bridge``: the teacher's lower part and the bridge."""
        if variant not in self.variants:
            return super().predict(variant, feats, all_feats, inputs, samples)
        return self.bridge.predict(inputs, samples)
