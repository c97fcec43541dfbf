"""Everything that is built from a config under the scope ``mmrkd``."""

from mmrkd.models.backbones import MobileNetV1, ResidualPairBackbone
from mmrkd.models.distiller import Distiller
from mmrkd.models.heads import TeacherHead
from mmrkd.models.losses import (
    FeatureAttentionLoss,
    FeatureCosineLoss,
    FeatureMSELoss,
    KLDivergenceLoss,
    SigmoidKLLoss,
)
from mmrkd.models.methods import ERA, AttentionTransfer, DistillMethod, FitNets, ResidualKD
from mmrkd.models.necks import ChannelStandardizer, MultiBranchResidualNeck, ResidualAssistantNeck
from mmrkd.models.teacher import FrozenTeacher

__all__ = [
    'ERA',
    'AttentionTransfer',
    'ChannelStandardizer',
    'DistillMethod',
    'Distiller',
    'FeatureAttentionLoss',
    'FeatureCosineLoss',
    'FeatureMSELoss',
    'FitNets',
    'FrozenTeacher',
    'KLDivergenceLoss',
    'MobileNetV1',
    'MultiBranchResidualNeck',
    'ResidualAssistantNeck',
    'ResidualKD',
    'ResidualPairBackbone',
    'SigmoidKLLoss',
    'TeacherHead',
]
