"""DeepMutualLearning: two models teach each other."""

from collections.abc import Sequence
from typing import Any, Optional

from torch import Tensor

from mmrkd.models.heads import KnowledgeBridge, OutputMimicry, sum_losses
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.registry import MODELS
from mmrkd.structures import Features, StudentView, TeacherView


@MODELS.register_module()
class DeepMutualLearning(DistillMethod):
    r"""Zhang et al., `Deep Mutual Learning` (arXiv 1706.00384): no trained teacher, two peers learn together.

    .. math::
        L_{student} = w_{task} L_{task}(z_s) + w_{kd} KL(sg\, z_p \| z_s), \qquad
        L_{peer} = L_{task}(z_p) + w_{kd} KL(sg\, z_s \| z_p)

    The peer p is a model of the teacher's config that starts from the framework's own initialisation. Nothing of the
    trained teacher enters; it is not run. Both losses are taken on the same outputs and the models step together (ours:
    the paper's algorithm updates one after the other). Detectors (ours): :class:`~mmrkd.models.heads.OutputMimicry`.

    Gradient contract: each target is detached; each model learns from its own two terms.

    Args:
        w_task: Weight of the student's own losses. Defaults to 1.
        w_kd: Weight of the KL terms. Defaults to 1.
        tau: Temperature. Defaults to 1, as in the paper.
        w_box: Weight of a detector's boxes, relative to ``w_kd``. Defaults to 1.
        tau_box: Temperature of the box distributions of GFL-type heads. Defaults to 10.

    Raises:
        ValueError: The two heads do not line up.
    """

    variants = ('peer',)
    needs_teacher = False

    def __init__(
        self,
        w_task: float = 1.0,
        w_kd: float = 1.0,
        tau: float = 1.0,
        w_box: float = 1.0,
        tau_box: float = 10.0,
    ) -> None:
        super().__init__()
        self.task_weight, self.w_kd = w_task, w_kd
        self.mimicry_cfg = dict(tau=tau, w_box=w_box, tau_box=tau_box)

    @property
    def active(self) -> bool:
        """Whether the KL terms have a weight."""
        return self.w_kd != 0

    def setup(self, pair: Pair) -> None:
        """Builds the peer."""
        pair.require_ground_truth('DeepMutualLearning')
        pair.require_same_layout('DeepMutualLearning')
        self.peer = KnowledgeBridge(pair.teacher, 'input', 'random')
        self.mimicry = OutputMimicry(pair.student, **self.mimicry_cfg)
        self.match = pair.match

    def losses(self, student: StudentView, teacher: Optional[TeacherView], samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_peer_task``, ``loss_student_peer`` and ``loss_peer_student`` (and ``_box`` of a detector)."""
        inputs = self.peer.teacher.convert(student.inputs, samples)
        feats = self.peer.fit(self.peer.extract(inputs, {}), student.feats)
        task, outputs = self.peer.adapter.task_loss(feats, inputs, samples)
        return {
            'loss_peer_task': sum_losses(task),
            **self.mimicry('loss_student_peer', self.w_kd, outputs, student.outputs),
            **self.mimicry('loss_peer_student', self.w_kd, student.outputs, outputs),
        }

    def predict(self, variant: str, feats: Features, all_feats: Any, inputs: Tensor, samples: Sequence) -> Sequence:
        """Predicts as ``peer``."""
        if variant not in self.variants:
            return super().predict(variant, feats, all_feats, inputs, samples)
        return self.peer.predict(inputs, samples)
