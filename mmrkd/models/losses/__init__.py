"""Losses: pure functions in ``functional``, registered modules with a weight in ``modules``."""

from mmrkd.models.losses.adaptation import AffineSums, adaptation_cost
from mmrkd.models.losses.channel_wise import channel_divergence
from mmrkd.models.losses.correlation import hard_ranks, rank_distance, soft_ranks, value_distance
from mmrkd.models.losses.cross_head import align_statistics, box_overlaps, quality_focal
from mmrkd.models.losses.cross_view import cross_view_kl, kept_kl, sure_of
from mmrkd.models.losses.decoupled import decoupled_kl, grouped_kl, ranked_groups
from mmrkd.models.losses.deep_supervision import allocated_weights
from mmrkd.models.losses.difficulty import (
    combined_pixels,
    difficulty_weight,
    hard_pixels,
    mask_average,
    mask_shares,
    true_class_probability,
)
from mmrkd.models.losses.disentanglement import median_distance, squared_mmd
from mmrkd.models.losses.ensemble import class_kl, consistency_ramp, heatmap_kl, heatmap_mse, mixed_maps
from mmrkd.models.losses.explained_variance import explained_variance
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
from mmrkd.models.losses.keypoints import coordinate_kl
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
from mmrkd.models.losses.self_supervision import kept_rows, turned_similarities
from mmrkd.models.losses.standardization import standardize_logits
from mmrkd.models.losses.transformed import transformed_matching

__all__ = [
    'AffineSums',
    'FeatureAttentionLoss',
    'FeatureCosineLoss',
    'FeatureMSELoss',
    'KLDivergenceLoss',
    'SigmoidKLLoss',
    'adaptation_cost',
    'align_statistics',
    'allocated_weights',
    'attention_distance',
    'background_kl',
    'box_distribution_kl',
    'box_kl',
    'box_l1',
    'box_overlaps',
    'channel_divergence',
    'class_kl',
    'combined_pixels',
    'consistency_ramp',
    'coordinate_kl',
    'cosine_distance',
    'cross_view_kl',
    'decoupled_kl',
    'difficulty_weight',
    'explained_variance',
    'feature_mse',
    'focal_masks',
    'focal_terms',
    'generation_error',
    'grouped_kl',
    'hard_pixels',
    'hard_ranks',
    'heatmap_kl',
    'heatmap_mse',
    'kept_kl',
    'kept_rows',
    'kl_divergence',
    'mask_average',
    'mask_shares',
    'median_distance',
    'mixed_maps',
    'pearson_distance',
    'quality_focal',
    'rank_distance',
    'ranked_groups',
    'relation_distance',
    'sigmoid_kl',
    'soft_ranks',
    'softmax_kl_rows',
    'squared_error',
    'squared_mmd',
    'standardize_logits',
    'sure_of',
    'transformed_matching',
    'true_class_probability',
    'turned_similarities',
    'valuable_region',
    'value_distance',
]
