"""One head's outputs learn from another's: logits, and boxes where there are some."""

from typing import Any, Optional

import torch
from torch import Tensor

from mmrkd.adapters import ModelAdapter
from mmrkd.models.losses import box_distribution_kl, box_l1, kl_divergence, sigmoid_kl


class OutputMimicry:
    """Compares the outputs of two heads that line up, one by one.

    Classification logits: softmax KL (arXiv 1503.02531), or Bernoulli KL where scores are independent. Boxes of a
    detector's dense head: KL of the distributions of GFL-type heads (arXiv 2102.12252), otherwise the L1 distance of
    the raw regressions, both weighted by the target's confidence (ours). A two-stage detector is compared on its RPN.

    Gradient contract: the target is detached.

    Args:
        adapter: Adapter of a model whose head gives such outputs.
        tau: Temperature of the logits; ``None`` is 4 for classifiers and 1 for detectors, whose background would
            outweigh everything at a higher one (ours).
        w_box: Weight of the boxes, relative to the logits. Defaults to 1.
        tau_box: Temperature of box distributions. Defaults to 10, as in the paper.

    Raises:
        ValueError: A temperature is not positive.
    """

    def __init__(
        self, adapter: ModelAdapter, tau: Optional[float] = None, w_box: float = 1.0, tau_box: float = 10.0
    ) -> None:
        if (tau is not None and tau <= 0) or tau_box <= 0:
            raise ValueError(f'tau and tau_box must be > 0, found {tau} and {tau_box}')
        self.adapter = adapter
        self.tau, self.w_box, self.tau_box = tau, w_box, tau_box

    def __call__(self, name: str, weight: float, outputs: Any, targets: Any) -> dict[str, Tensor]:
        """Returns ``{name}`` and, for a detector, ``{name}_box``, weighted; nothing if the weight is 0.

        Args:
            name: Name of the loss.
            weight: Factor.
            outputs: Outputs of the head that learns.
            targets: Outputs of the head that it learns from.
        """
        if not weight:
            return {}
        logits, target_logits = (torch.cat(self.adapter.logits(o)) for o in (outputs, targets))
        tau = self.tau or (1.0 if self.adapter.detects else 4.0)
        divergence = sigmoid_kl if self.adapter.sigmoid else kl_divergence
        losses = {name: weight * divergence(logits, target_logits, tau)}
        if self.adapter.detects and self.w_box:
            boxes, target_boxes = self.adapter.boxes(outputs), self.adapter.boxes(targets)
            distance = self._box(torch.cat(boxes), torch.cat(target_boxes), self._confidence(target_logits))
            losses[f'{name}_box'] = weight * self.w_box * distance
        return losses

    def _box(self, boxes: Tensor, targets: Tensor, confidence: Tensor) -> Tensor:
        if self.adapter.box_bins > 1:
            return box_distribution_kl(boxes, targets, confidence, self.adapter.box_bins, self.tau_box)
        return box_l1(boxes, targets, confidence)

    def _confidence(self, logits: Tensor) -> Tensor:
        """The highest score of an object; the last class of a softmax head is the background."""
        logits = logits.detach()
        scores = logits.sigmoid() if self.adapter.sigmoid else logits.softmax(dim=1)[:, :-1]
        return scores.amax(dim=1)
