"""Registered losses: a weight above a pure function."""

from collections.abc import Sequence

from torch import Tensor, nn

from mmrkd.models.losses.functional import attention_distance, cosine_distance, feature_mse, kl_divergence, sigmoid_kl
from mmrkd.registry import MODELS


@MODELS.register_module()
class FeatureMSELoss(nn.Module):
    """:func:`feature_mse` times ``loss_weight``."""

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, estimates: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """Takes features of each level, returns a scalar."""
        return self.loss_weight * feature_mse(estimates, targets)


@MODELS.register_module()
class FeatureCosineLoss(FeatureMSELoss):
    """:func:`cosine_distance` times ``loss_weight``."""

    def forward(self, estimates: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """Takes features of each level, returns a scalar."""
        return self.loss_weight * cosine_distance(estimates, targets)


@MODELS.register_module()
class FeatureAttentionLoss(FeatureMSELoss):
    """:func:`attention_distance` times ``loss_weight``."""

    def forward(self, estimates: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """Takes maps of each level, returns a scalar."""
        return self.loss_weight * attention_distance(estimates, targets)


@MODELS.register_module()
class KLDivergenceLoss(nn.Module):
    """:func:`kl_divergence` times ``loss_weight``, at temperature ``tau``."""

    def __init__(self, tau: float = 1.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.tau = tau
        self.loss_weight = loss_weight

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Takes logits ``(N, K)``, returns a scalar."""
        return self.loss_weight * kl_divergence(student_logits, teacher_logits, self.tau)


@MODELS.register_module()
class SigmoidKLLoss(KLDivergenceLoss):
    """:func:`sigmoid_kl` times ``loss_weight``, at temperature ``tau``."""

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Takes logits ``(P, K)``, returns a scalar."""
        return self.loss_weight * sigmoid_kl(student_logits, teacher_logits, self.tau)
