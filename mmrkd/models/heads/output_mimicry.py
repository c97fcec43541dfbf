"""One head's outputs learn from another's: logits, and boxes where there are some."""

from collections.abc import Sequence
from typing import Any, Optional

import torch
from torch import Tensor

from mmrkd.adapters import ModelAdapter
from mmrkd.models.losses import (
    background_kl,
    box_distribution_kl,
    box_l1,
    heatmap_mse,
    kl_divergence,
    sigmoid_kl,
    standardize_logits,
)


def logit_divergence(
    adapter: ModelAdapter,
    outputs: Any,
    targets: Any,
    tau: float,
    standardize: bool = False,
    samples: Optional[Sequence] = None,
) -> Tensor:
    """Divergence of the scores of two heads that line up, whatever form their outputs have.

    Args:
        adapter: Adapter of a model whose head gives such outputs.
        outputs: Outputs of the head that learns. Gradients flow.
        targets: Outputs of the head that it learns from. Detached.
        tau: Temperature.
        standardize: Whether both logits are standardised first (:func:`~mmrkd.models.losses.standardize_logits`).
            Exclusive scores only. Defaults to False.
        samples: Data samples, which say which joints of heatmaps are visible. Defaults to None: all.

    Returns:
        A scalar >= 0. Independent scores: Bernoulli KL; exclusive ones: softmax KL. Where almost all predictions are
        background, both are sums over predictions, divided by the number of objects that the target sees. Heatmaps:
        half of their mean squared error (:func:`~mmrkd.models.losses.heatmap_mse`), which knows no temperature.
    """
    if adapter.output_loss == 'mse':
        pairs = zip(adapter.logit_maps(outputs), adapter.logit_maps(targets))
        visible = adapter.visibility(samples)
        return torch.stack([heatmap_mse(own, other.detach(), visible) for own, other in pairs]).sum()
    if adapter.sigmoid and hasattr(adapter, 'columns') and not standardize:  # the largest tensors that there are
        return sigmoid_kl(adapter.logit_maps(outputs), adapter.logit_maps(targets), tau, adapter.columns)
    logits, target_logits = (adapter.logits(o) for o in (outputs, targets))
    if standardize:
        logits, target_logits = ([standardize_logits(z) for z in levels] for levels in (logits, target_logits))
    if adapter.sigmoid:
        return sigmoid_kl(logits, target_logits, tau)
    if adapter.background:
        return background_kl(logits, target_logits, tau)
    if adapter.sums_outputs:
        return torch.stack([kl_divergence(*pair, tau) for pair in zip(logits, target_logits)]).sum()
    return kl_divergence(torch.cat(logits), torch.cat(target_logits), tau)


class OutputMimicry:
    """Compares the outputs of two heads that line up, one by one.

    Classification logits: softmax KL (arXiv 1503.02531), or Bernoulli KL where scores are independent, see
    :func:`logit_divergence`. Boxes of a detector's dense head: KL of the distributions of GFL-type heads (arXiv
    2102.12252), otherwise the L1 distance in units of the box (:mod:`mmrkd.adapters.box_forms`), both weighted by the
    target's confidence (ours). A two-stage detector is compared on its RPN.

    Gradient contract: the target is detached.

    Args:
        adapter: Adapter of a model whose head gives such outputs.
        tau: Temperature of the logits; ``None`` is 4 for classifiers and 1 for all others: the background of detectors
            would outweigh everything at a higher one (ours). Heatmaps have none.
        w_box: Weight of the boxes, relative to the logits. Defaults to 1.
        tau_box: Temperature of box distributions. Defaults to 10, as in the paper.
        standardize: See :func:`logit_divergence`. Defaults to False.

    Raises:
        ValueError: A temperature is not positive, or boxes have a weight and the head regresses none.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        tau: Optional[float] = None,
        w_box: float = 1.0,
        tau_box: float = 10.0,
        standardize: bool = False,
    ) -> None:
        if (tau is not None and tau <= 0) or tau_box <= 0:
            raise ValueError(f'tau and tau_box must be > 0, found {tau} and {tau_box}')
        if w_box and adapter.has_boxes and adapter.box_obstacle is not None:
            raise ValueError(adapter.box_obstacle)
        self.adapter = adapter
        self.tau, self.w_box, self.tau_box, self.standardize = tau, w_box, tau_box, standardize

    def __call__(
        self, name: str, weight: float, outputs: Any, targets: Any, samples: Optional[Sequence] = None
    ) -> dict[str, Tensor]:
        """Returns ``{name}`` and, for a detector, ``{name}_box``, weighted; nothing if the weight is 0.

        Args:
            name: Name of the loss.
            weight: Factor.
            outputs: Outputs of the head that learns.
            targets: Outputs of the head that it learns from.
            samples: Data samples, see :func:`logit_divergence`.
        """
        if not weight:
            return {}
        divergence = logit_divergence(self.adapter, outputs, targets, self.temperature, self.standardize, samples)
        losses = {name: weight * divergence}
        if self.adapter.has_boxes and self.w_box:
            losses[f'{name}_box'] = weight * self.w_box * self._box(outputs, targets)
        return losses

    @property
    def temperature(self) -> float:
        """Temperature of the logits."""
        return self.tau or self.adapter.default_tau

    def _box(self, outputs: Any, targets: Any) -> Tensor:
        boxes, target_boxes = (self.adapter.boxes(o) for o in (outputs, targets))
        confidence = [self._confidence(logits) for logits in self.adapter.logits(targets)]
        if self.adapter.box_bins > 1:
            return box_distribution_kl(boxes, target_boxes, confidence, self.adapter.box_bins, self.tau_box)
        return box_l1(boxes, target_boxes, confidence, self.adapter.box_scales(targets))

    def _confidence(self, logits: Tensor) -> Tensor:
        """The highest score of an object; the last class of a softmax head is the background."""
        logits = logits.detach()
        scores = logits.sigmoid() if self.adapter.sigmoid else logits.softmax(dim=1)[:, :-1]
        return scores.amax(dim=1)
