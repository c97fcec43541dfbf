"""Teacher weight integration (TWI) of ERA: the teacher's frozen head judges estimated features."""

from collections.abc import Sequence
from typing import Any, Callable

import torch
from torch import Tensor, nn

from mmrkd.adapters.assigned import TargetCapture
from mmrkd.models.teacher import FrozenTeacher
from mmrkd.registry import MODELS
from mmrkd.structures import LevelMatch, TeacherView, resized


@MODELS.register_module()
class TeacherHead(nn.Module):
    """Runs the teacher's head on estimates of its features (arXiv 2508.16050, teacher weight integration).

    For a classifier this is its final layer, for a detector ``bbox_head``, or ``rpn_head`` and ``roi_head``, with the
    teacher's own assigner, sampler and box coder. Levels of the teacher that the student has no counterpart for keep
    the teacher's own features.

    The targets that its head assigns without looking at predictions are assigned once for all passes of a batch.

    Gradient contract: gradients flow through the head into the estimates. Its parameters are frozen and belong to the
    teacher: this module has none of its own, so no optimiser sees them and no checkpoint holds them.

    Args:
        teacher: The frozen teacher.
        match: Which estimate stands for which of the teacher's levels.
    """

    def __init__(self, teacher: FrozenTeacher, match: LevelMatch) -> None:
        super().__init__()
        self.teacher = teacher
        self.match = match

    def loss(self, estimates: Sequence[Tensor], view: TeacherView, samples: Sequence) -> tuple[Tensor, Any]:
        """Computes the teacher's task loss on estimated features.

        Args:
            estimates: One tensor for each matched level, on the scale of the teacher's features.
            view: The teacher's view of the batch.
            samples: Data samples with ground truth.

        Returns:
            The sum of the teacher's losses, a scalar in float32, and the outputs of its dense or classification head.
        """
        adapter = self.teacher.adapter
        own = adapter.features(view.all_feats)
        estimates = {t: resized(f, own[t], self.match.resize) for t, f in self._by_level(estimates).items()}
        capture = TargetCapture(reads=False, once=view.once)
        losses, outputs = adapter.judge(adapter.replace(view.all_feats, estimates), view.inputs, samples, capture)
        return sum_losses(losses), outputs

    @torch.no_grad()
    def outputs(self, estimates: Sequence[Tensor]) -> Any:
        """Returns the outputs of the teacher's dense or classification head on estimates of all its levels."""
        return self.teacher.adapter.head_outputs(self._from_estimates_alone(estimates))

    @torch.no_grad()
    def predict(self, estimate: Callable[[Tensor], Sequence[Tensor]], inputs: Tensor, samples: Sequence) -> Sequence:
        """Predicts with the teacher's head, from estimates of all its levels: the teacher's body is not run.

        Args:
            estimate: Gives the estimates for images ``(N, 3, h, w)``: all of ``inputs``, or windows of them.
            inputs: Images ``(N, 3, H, W)``.
            samples: Their data samples.

        Raises:
            ValueError: The teacher's head reads levels that the student does not have.
        """
        return self.teacher.adapter.predict_through(
            lambda images: self._from_estimates_alone(estimate(images)), inputs, samples
        )

    def _by_level(self, estimates: Sequence[Tensor]) -> dict[int, Tensor]:
        return {index: estimate for (_, index), estimate in zip(self.match.pairs, estimates)}

    def _from_estimates_alone(self, estimates: Sequence[Tensor]) -> Any:
        if not self.match.covers_teacher:
            raise ValueError(
                "the teacher's head cannot run on the student's features alone: it reads "
                f'[{"; ".join(map(str, self.match.teacher_levels))}], and the student has only '
                f'[{"; ".join(map(str, self.match.student_levels))}]'
            )
        return self.teacher.adapter.assemble(self._by_level(estimates))


def sum_losses(losses: dict[str, Any]) -> Tensor:
    """Sums a loss dictionary as mmengine does: entries whose name contains ``loss``; lists are summed. In float32."""
    terms: list[Tensor] = []
    for name, value in losses.items():
        if 'loss' in name:
            terms.extend(v.float().mean() for v in (value if isinstance(value, (list, tuple)) else [value]))
    return torch.stack(terms).sum()
