"""Losses: pure functions in ``functional``, registered modules with a weight in ``modules``."""

from mmrkd.models.losses.channel_wise import channel_divergence
from mmrkd.models.losses.cross_head import align_statistics, box_overlaps, quality_focal
from mmrkd.models.losses.decoupled import decoupled_kl, grouped_kl, ranked_groups
from mmrkd.models.losses.focal import focal_masks, focal_terms
from mmrkd.models.losses.functional import (
    attention_distance,
    background_kl,
    box_distribution_kl,
    box_l1,
    cosine_distance,
    feature_mse,
    kl_divergence,
    sigmoid_kl,
    softmax_kl_rows,
)
from mmrkd.models.losses.localization import box_kl, valuable_region
from mmrkd.models.losses.masked_generation import generation_error, squared_error
from mmrkd.models.losses.modules import (
    FeatureAttentionLoss,
    FeatureCosineLoss,
    FeatureMSELoss,
    KLDivergenceLoss,
    SigmoidKLLoss,
)
from mmrkd.models.losses.pearson import pearson_distance
from mmrkd.models.losses.relation import relation_distance
from mmrkd.models.losses.standardization import standardize_logits
from mmrkd.models.losses.transformed import transformed_matching

__all__ = [
    'FeatureAttentionLoss',
    'FeatureCosineLoss',
    'FeatureMSELoss',
    'KLDivergenceLoss',
    'SigmoidKLLoss',
    'align_statistics',
    'attention_distance',
    'background_kl',
    'box_distribution_kl',
    'box_kl',
    'box_l1',
    'box_overlaps',
    'channel_divergence',
    'cosine_distance',
    'decoupled_kl',
    'feature_mse',
    'focal_masks',
    'focal_terms',
    'generation_error',
    'grouped_kl',
    'kl_divergence',
    'pearson_distance',
    'quality_focal',
    'ranked_groups',
    'relation_distance',
    'sigmoid_kl',
    'softmax_kl_rows',
    'squared_error',
    'standardize_logits',
    'transformed_matching',
    'valuable_region',
]
