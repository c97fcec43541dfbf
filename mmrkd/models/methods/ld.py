"""LD: localization distillation."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from mmrkd.models.losses import box_kl, softmax_kl_rows, valuable_region
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.methods.numbers import require_positive, require_weights
from mmrkd.registry import MODELS
from mmrkd.structures import StudentView, TeacherView


@MODELS.register_module()
class LD(DistillMethod):
    r"""Zheng et al., `Localization Distillation for Dense Object Detection` (arXiv 2102.12252).

    .. math::
        L_{main} = w \sum_{p\,positive} c_p \, d_p, \qquad L_{vlr} = \frac{w_v}{4} \sum_{p} v_p \, d_p, \qquad
        L_{kd} = w_k \, \mathrm{mean}_{p\,positive} \frac{T'^2}{K} \mathrm{KL}(\mathrm{softmax}(z_t/T') \,\|\,
        \mathrm{softmax}(z_s/T'))

    d is the divergence of the distributions of the four sides (:func:`~mmrkd.models.losses.box_kl`), c the highest
    score, v the worth of an anchor in the valuable region around the positives
    (:func:`~mmrkd.models.losses.valuable_region`). Positives are those of the student's own assigner. All sums run over
    the batch and nothing divides them, so they grow with the objects in it, and d is the *mean* over the bins (as
    released; the authors advise against more than three images for each process). The LD of mmdet is
    :math:`L_{main}` alone: ``w_vlr=0, w_kd=0``. The imitation of features that the authors add for one pair is a method
    of its own.

    Ours: ``bins``, ``confidence`` and ``normalize``, whose other values are the reduction that KD and SemiOnlineKD use.

    Gradient contract: flows into the student's boxes and, by :math:`L_{kd}`, scores; c, v and the teacher are detached.

    Args:
        w_main: w. Defaults to 0.25.
        w_vlr: w_v. Defaults to 0.25.
        w_kd: w_k. Defaults to 10.
        tau: Temperature of the distributions. Defaults to 10.
        tau_kd: T'. Defaults to 2.
        bins: ``'mean'`` over the bins of a side or ``'sum'``, which is KL. Defaults to ``'mean'``.
        confidence: Whose scores c are, ``'student'`` (the default) or ``'teacher'``.
        normalize: Whether :math:`L_{main}` and :math:`L_{vlr}` are divided by the sum of c and of v, at least 1.
            Defaults to False.

    Raises:
        ValueError: An argument is out of range, the heads do not line up, or they regress no distributions.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> method = MODELS.build(dict(type='mmrkd.LD', w_vlr=0.0, w_kd=0.0))  # the LD of mmdet
        >>> method.reads_targets
        True

        Each side of a box is a distribution over distances; here over two:

        >>> import math, torch
        >>> from mmrkd.models.losses import box_kl
        >>> teacher = torch.tensor([[math.log(3), 0.0] * 4])
        >>> round(box_kl(torch.zeros(1, 8), teacher, bins=2, tau=1.0, reduction='sum').item(), 4)
        0.1308
    """

    weights = {'w_main': 'loss_main', 'w_vlr': 'loss_vlr', 'w_kd': 'loss_kd'}
    reads_targets = True

    def __init__(
        self,
        w_main: float = 0.25,
        w_vlr: float = 0.25,
        w_kd: float = 10.0,
        tau: float = 10.0,
        tau_kd: float = 2.0,
        bins: Literal['mean', 'sum'] = 'mean',
        confidence: Literal['student', 'teacher'] = 'student',
        normalize: bool = False,
    ) -> None:
        super().__init__()
        require_weights('LD', w_main=w_main, w_vlr=w_vlr, w_kd=w_kd)
        require_positive('LD', tau=tau, tau_kd=tau_kd)
        if bins not in ('mean', 'sum') or confidence not in ('student', 'teacher'):
            raise ValueError(
                f"LD: bins must be 'mean' or 'sum' and confidence 'student' or 'teacher', found {bins!r} and "
                f'{confidence!r}'
            )
        self.w_main, self.w_vlr, self.w_kd, self.tau, self.tau_kd = w_main, w_vlr, w_kd, tau, tau_kd
        self.bins, self.confidence, self.normalize = bins, confidence, normalize

    def setup(self, pair: Pair) -> None:
        """Checks that both heads regress distributions and line up."""
        pair.require_detectors('LD')
        for who, adapter in (('student', pair.student), ('teacher', pair.teacher.adapter)):
            if adapter.box_bins == 1 or not adapter.assigns:
                raise ValueError(
                    f'LD compares the distributions that GFL-type heads regress for each side of a box, but the {who} '
                    f'has a {type(adapter.head).__name__}. Take GFL models, or CrossKD, or KD with w_box.'
                )
        pair.require_same_layout('LD')

    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_main``, ``loss_vlr`` and ``loss_kd``, those that have a weight."""
        adapter, outputs, targets = self.pair.student, student.outputs, teacher.outputs
        logits, target_logits = (torch.cat(adapter.logits(o)) for o in (outputs, targets))
        positive = self._positive(student.assigned)
        losses = {}
        if self.w_main:
            scores = (logits if self.confidence == 'student' else target_logits).detach().sigmoid().amax(dim=1)
            losses['loss_main'] = self.w_main * self._divergence(outputs, targets, scores * positive)
        if self.w_vlr:
            worth = self._worth(outputs, samples)
            losses['loss_vlr'] = self.w_vlr / 4 * self._divergence(outputs, targets, worth)
        if self.w_kd:
            losses['loss_kd'] = self.w_kd * self._classes(logits, target_logits, positive)
        return losses

    def _positive(self, assigned: Any) -> Tensor:
        """Which predictions have an object, ``(P,)``."""
        if assigned is None:
            raise ValueError(f'LD found no assigned targets in the losses of {type(self.pair.student.head).__name__}')
        labels = torch.cat(assigned.labels)
        return (labels >= 0) & (labels < self.pair.student.num_classes)

    def _worth(self, outputs: Any, samples: Sequence) -> Tensor:
        """Worth of each prediction ``(P,)``, in the order of the logits: level by level, then image by image."""
        priors = self.pair.student.priors(outputs)
        sizes = [len(level) for level in priors]
        boxes = [instances.bboxes for instances in self.pair.student.targets(samples)]
        images = [valuable_region(torch.cat(priors), sizes, getattr(b, 'tensor', b)).split(sizes) for b in boxes]
        return torch.cat([worth for level in zip(*images) for worth in level])

    def _divergence(self, outputs: Any, targets: Any, weights: Tensor) -> Tensor:
        """Weighted sum of the divergences of boxes: of all of them, since to pick some waits for the device."""
        adapter = self.pair.student
        boxes, target_boxes = (torch.cat(adapter.boxes(o)) for o in (outputs, targets))
        total = (weights * box_kl(boxes, target_boxes, adapter.box_bins, self.tau, self.bins)).sum()
        return total / weights.sum().clamp(min=1) if self.normalize else total

    def _classes(self, logits: Tensor, targets: Tensor, positive: Tensor) -> Tensor:
        """Mean over positives of the KL of the softmax over classes, whose logits the head trains with a sigmoid."""
        weights = positive / (positive.sum().clamp(min=1) * logits.shape[1])
        return (weights * softmax_kl_rows(logits, targets, self.tau_kd)).sum()
