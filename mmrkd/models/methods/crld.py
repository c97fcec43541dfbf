"""CRLD: consistency of student and teacher within and across two views of an image."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmrkd.models.heads import sum_losses
from mmrkd.models.losses import cross_view_kl, sure_of
from mmrkd.models.losses.cross_view import GATES
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.methods.numbers import require_positive, require_share, require_weights
from mmrkd.registry import MODELS
from mmrkd.structures import StudentView, TeacherView


@MODELS.register_module()
class CRLD(DistillMethod):
    r"""`Cross-view consistency regularisation for logit distillation` (arXiv 2412.16493). Classifiers.

    .. math::
        L = w_{ce} (CE(z_s^w, y) + CE(z_s^s, y)) + w_{within}\, within + w_{cross}\, cross

    .. code:: text

        weak view   ── student z_s^w ── KD ── z_t^w teacher      within: straight, where the teacher is sure of the weak
                                     \ /                          view
                                     / \                         cross: slanting, where it is sure of the strong view
        strong view ── student z_s^s ── KD ── z_t^s teacher

    The first view of the pipeline is the weak one, on which the student's own losses are computed; the further one is
    called ``'strong'`` (``configs/_base_/views/*_two_views.py``). With ``w_within = w_cross = 0`` the student learns
    from the labels of both views alone: the control that a comparison with methods of one view needs.

    The release's: all defaults; that both terms within are gated by the weak view and both across by the strong one
    (:func:`~mmrkd.models.losses.cross_view_kl`). Ours: ``gate='target'``, ``joint``.

    Gradient contract: flows into the student; the teacher and its confidence are detached.

    Args:
        w_ce: Weight of the student's own losses, on both views. Defaults to 1; 2 on ImageNet.
        w_within: Defaults to 2; 4 on Tiny-ImageNet.
        w_cross: Defaults to 0.5; 1 on Tiny-ImageNet.
        tau: Temperature. Defaults to 4; 1 on ImageNet, 2 on Tiny-ImageNet.
        tau_weak: Least confidence of the teacher on the weak view, in [0, 1]. Defaults to 0.9.
        tau_strong: The same on the strong view. Defaults to 0.2.
        gate: ``'released'``, or ``'target'``: each comparison is gated by the view that its target comes from. Defaults
            to ``'released'``.
        joint: Whether the student sees both views as one BatchNorm batch. Defaults to False, as in the release.

    Raises:
        ValueError: A number is out of range, the models are no classifiers, their heads do not line up, or images are
            mixed. In training: the batch has one view.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> method = MODELS.build(dict(type='mmrkd.CRLD', w_within=2.0, w_cross=0.5))
        >>> method.views  # which the pipeline has to give
        ('strong',)

        What the teacher is not sure of does not count:

        >>> import torch
        >>> from mmrkd.models.losses import sure_of
        >>> sure_of(torch.tensor([[5.0, 0.0], [0.5, 0.0]]), 0.9)
        tensor([1., 0.])
    """

    weights = {'w_ce': 'loss_strong_task', 'w_within': 'loss_within', 'w_cross': 'loss_cross'}
    views = ('strong',)

    def __init__(
        self,
        w_ce: float = 1.0,
        w_within: float = 2.0,
        w_cross: float = 0.5,
        tau: float = 4.0,
        tau_weak: float = 0.9,
        tau_strong: float = 0.2,
        gate: str = 'released',
        joint: bool = False,
    ) -> None:
        super().__init__()
        require_weights('CRLD', w_ce=w_ce, w_within=w_within, w_cross=w_cross)
        require_positive('CRLD', tau=tau)
        require_share('CRLD', tau_weak=tau_weak, tau_strong=tau_strong)
        if gate not in GATES:
            raise ValueError(f'CRLD: gate must be one of {GATES}, found {gate!r}')
        self.w_ce, self.w_within, self.w_cross, self.tau = w_ce, w_within, w_cross, tau
        self.tau_weak, self.tau_strong, self.gate, self.joint = tau_weak, tau_strong, gate, joint

    @property
    def task_weight(self) -> float:
        """Weight of the student's own losses on the weak view: that of the strong one."""
        return self.w_ce

    @property
    def needs_teacher(self) -> bool:
        """Not where only labels are left."""
        return bool(self.w_within or self.w_cross)

    def setup(self, pair: Pair) -> None:
        """Checks that both are classifiers whose heads line up."""
        if pair.teacher is not None:
            pair.require_classifiers('CRLD')

    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_within`` and ``loss_cross``, ``loss_strong_task``, and the shares of samples that are kept."""
        strong, adapter = student.views['strong'], self.pair.student
        losses, outputs = {}, None
        if self.w_ce:
            task, outputs = adapter.task_loss(strong.all_feats, strong.inputs, samples)
            losses['loss_strong_task'] = self.w_ce * sum_losses(task)
        if self.w_within or self.w_cross:
            outputs = strong.outputs if outputs is None else outputs
            views = (student.outputs, outputs, teacher.outputs, teacher.views['strong'].outputs)
            logits = [torch.cat(adapter.logits(view)) for view in views]
            within, cross = cross_view_kl(*logits, self.tau, self.tau_weak, self.tau_strong, self.gate)
            losses.update(loss_within=self.w_within * within, loss_cross=self.w_cross * cross)
            losses.update(kept_weak=sure_of(logits[2], self.tau_weak).mean())
            losses.update(kept_strong=sure_of(logits[3], self.tau_strong).mean())
        return losses
