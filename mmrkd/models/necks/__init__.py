"""Necks: modules on the student's features, usable in an ordinary mmdet or mmpretrain config."""

from mmrkd.models.necks.aggregation_unit import AggregationUnit
from mmrkd.models.necks.auxiliary_branch import AuxiliaryBranch
from mmrkd.models.necks.channel_standardizer import ChannelStandardizer
from mmrkd.models.necks.disentangler import Disentangler
from mmrkd.models.necks.feature_generator import FeatureGenerator, draw_kept
from mmrkd.models.necks.global_context import GlobalContext
from mmrkd.models.necks.level_routing import PlaceLevels, SelectLevels
from mmrkd.models.necks.multi_branch_residual_neck import MultiBranchResidualNeck
from mmrkd.models.necks.multi_width_residual_neck import MultiWidthResidualNeck
from mmrkd.models.necks.neck_sequence import NeckSequence
from mmrkd.models.necks.projection import Projection, linear_part, pointwise
from mmrkd.models.necks.residual_assistant_neck import ResidualAssistantNeck

__all__ = [
    'AggregationUnit',
    'AuxiliaryBranch',
    'ChannelStandardizer',
    'Disentangler',
    'FeatureGenerator',
    'GlobalContext',
    'MultiBranchResidualNeck',
    'MultiWidthResidualNeck',
    'NeckSequence',
    'PlaceLevels',
    'Projection',
    'ResidualAssistantNeck',
    'SelectLevels',
    'draw_kept',
    'linear_part',
    'pointwise',
]
