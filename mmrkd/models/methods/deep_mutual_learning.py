"""DeepMutualLearning: two models teach each other."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Optional, Union

from mmengine.config import ConfigDict
from torch import Tensor

from mmrkd.adapters.assigned import TargetCapture
from mmrkd.models.heads import CopyVariant, OutputMimicry, Peer, fit_grid, sum_losses
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.pair import require_ground_truth, require_same_layout
from mmrkd.models.teacher import load_model_config
from mmrkd.models.variants import Variant
from mmrkd.registry import MODELS
from mmrkd.structures import StudentView, TeacherView


@MODELS.register_module()
class DeepMutualLearning(DistillMethod):
    r"""Zhang et al., `Deep Mutual Learning` (arXiv 1706.00384): no trained teacher, two peers learn together.

    .. math::
        L_{student} = w_{task} L_{task}(z_s) + w_{kd} KL(sg\, z_p \| z_s), \qquad
        L_{peer} = L_{task}(z_p) + w_{kd} KL(sg\, z_s \| z_p)

    The peer p is a model that starts from the framework's own initialisation: of the config ``peer``, else of the
    teacher's config, else of the student's. No trained teacher is needed, and where there is one it is not run. Both
    losses are taken on the same outputs and the models step together (ours: the paper's algorithm updates one after the
    other). Detectors (ours): :class:`~mmrkd.models.heads.OutputMimicry`.

    Gradient contract: each target is detached; each model learns from its own two terms.

    Args:
        w_task: Weight of the student's own losses. Defaults to 1.
        w_kd: Weight of the KL terms. Defaults to 1.
        tau: Temperature. Defaults to 1, as in the paper.
        w_box: Weight of a detector's boxes, relative to ``w_kd``. Defaults to 1.
        tau_box: Temperature of the box distributions of GFL-type heads. Defaults to 10.
        peer: Config of the peer, see :func:`mmrkd.models.teacher.load_model_config`. Defaults to that of the method's
            teacher or, without one, of the student.

    Raises:
        ValueError: The two heads do not line up.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> method = MODELS.build(dict(type='mmrkd.DeepMutualLearning', w_kd=1.0))
        >>> method.needs_teacher
        False
    """

    weights = {'w_kd': ('loss_student_peer*', 'loss_peer_student*')}
    needs_teacher = False
    compares_classes = False

    def __init__(
        self,
        w_task: float = 1.0,
        w_kd: float = 1.0,
        tau: float = 1.0,
        w_box: float = 1.0,
        tau_box: float = 10.0,
        peer: Optional[Union[str, dict]] = None,
    ) -> None:
        super().__init__()
        self.task_weight, self.w_kd, self.peer_cfg = w_task, w_kd, peer
        self.mimicry_cfg = dict(tau=tau, w_box=w_box, tau_box=tau_box)

    def setup(self, pair: Pair) -> None:
        """Builds the peer and compares its head with the student's."""
        self.peer = Peer(self._peer_config(pair), pair.student)
        require_ground_truth(pair.student, self.peer.adapter, 'DeepMutualLearning')
        require_same_layout(pair.student, self.peer.adapter, 'DeepMutualLearning')
        self.mimicry = OutputMimicry(pair.student, **self.mimicry_cfg)
        self.assigns_alike = pair.student.assigns_like(self.peer.adapter)

    def _peer_config(self, pair: Pair) -> ConfigDict:
        if self.peer_cfg is not None:
            return load_model_config(self.peer_cfg)
        return deepcopy(pair.student_cfg if pair.teacher is None else pair.teacher.cfg)

    def losses(self, student: StudentView, teacher: Optional[TeacherView], samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_peer_task``, ``loss_student_peer`` and ``loss_peer_student`` (and ``_box`` of a detector)."""
        inputs = self.peer.convert(student.inputs, samples)
        grid = self.pair.student.features(student.all_feats)
        feats = fit_grid(self.peer.adapter, self.peer.extract(inputs), grid)
        capture = TargetCapture(reads=False, once=student.once if self.assigns_alike else None)
        task, outputs = self.peer.adapter.task_loss(feats, inputs, samples, capture)
        return {
            'loss_peer_task': sum_losses(task),
            **self.mimicry('loss_student_peer', self.w_kd, outputs, student.outputs, samples),
            **self.mimicry('loss_peer_student', self.w_kd, student.outputs, outputs, samples),
        }

    def prediction_variants(self) -> list[Variant]:
        """Returns ``peer``, a plain model of its config."""
        return [CopyVariant('peer', self.peer, self.peer.cfg, self.pair)]
