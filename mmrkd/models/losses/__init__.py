"""Losses: pure functions in ``functional``, registered modules with a weight in ``modules``."""

from mmrkd.models.losses.functional import box_distribution_kl, box_l1, feature_mse, kl_divergence, sigmoid_kl
from mmrkd.models.losses.modules import FeatureMSELoss, KLDivergenceLoss, SigmoidKLLoss

__all__ = [
    'FeatureMSELoss',
    'KLDivergenceLoss',
    'SigmoidKLLoss',
    'box_distribution_kl',
    'box_l1',
    'feature_mse',
    'kl_divergence',
    'sigmoid_kl',
]
