"""Losses: pure functions in ``functional``, registered modules with a weight in ``modules``."""

from mmrkd.models.losses.decoupled import decoupled_kl, grouped_kl, ranked_groups
from mmrkd.models.losses.functional import (
    attention_distance,
    background_kl,
    box_distribution_kl,
    box_l1,
    cosine_distance,
    feature_mse,
    kl_divergence,
    sigmoid_kl,
)
from mmrkd.models.losses.modules import (
    FeatureAttentionLoss,
    FeatureCosineLoss,
    FeatureMSELoss,
    KLDivergenceLoss,
    SigmoidKLLoss,
)
from mmrkd.models.losses.relation import relation_distance
from mmrkd.models.losses.standardization import standardize_logits
from mmrkd.models.losses.transformed import transformed_matching

__all__ = [
    'FeatureAttentionLoss',
    'FeatureCosineLoss',
    'FeatureMSELoss',
    'KLDivergenceLoss',
    'SigmoidKLLoss',
    'attention_distance',
    'background_kl',
    'box_distribution_kl',
    'box_l1',
    'cosine_distance',
    'decoupled_kl',
    'feature_mse',
    'grouped_kl',
    'kl_divergence',
    'ranked_groups',
    'relation_distance',
    'sigmoid_kl',
    'standardize_logits',
    'transformed_matching',
]
