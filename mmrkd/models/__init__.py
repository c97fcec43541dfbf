"""Everything that is built from a config under the scope ``mmrkd``."""

from mmrkd.models.backbones import MobileNetV1, ResidualPairBackbone, WideResNet
from mmrkd.models.distiller import Distiller
from mmrkd.models.heads import KnowledgeBridge, OutputMimicry, TeacherHead
from mmrkd.models.losses import (
    FeatureAttentionLoss,
    FeatureCosineLoss,
    FeatureMSELoss,
    KLDivergenceLoss,
    SigmoidKLLoss,
)
from mmrkd.models.methods import (
    ERA,
    KD,
    AttentionTransfer,
    DeepMutualLearning,
    DistillMethod,
    FitNets,
    ResidualKD,
    SemiOnlineKD,
)
from mmrkd.models.necks import (
    ChannelStandardizer,
    MultiBranchResidualNeck,
    MultiWidthResidualNeck,
    ResidualAssistantNeck,
)
from mmrkd.models.teacher import FrozenTeacher

__all__ = [
    'ERA',
    'KD',
    'AttentionTransfer',
    'ChannelStandardizer',
    'DeepMutualLearning',
    'DistillMethod',
    'Distiller',
    'FeatureAttentionLoss',
    'FeatureCosineLoss',
    'FeatureMSELoss',
    'FitNets',
    'FrozenTeacher',
    'KLDivergenceLoss',
    'KnowledgeBridge',
    'MobileNetV1',
    'MultiBranchResidualNeck',
    'MultiWidthResidualNeck',
    'OutputMimicry',
    'ResidualAssistantNeck',
    'ResidualKD',
    'ResidualPairBackbone',
    'SemiOnlineKD',
    'SigmoidKLLoss',
    'TeacherHead',
    'WideResNet',
]
