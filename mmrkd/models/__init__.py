"""Everything that is built from a config under the scope ``mmrkd``."""

from mmrkd.models.backbones import MobileNetV1, ResidualPairBackbone, WideResNet
from mmrkd.models.distiller import Distiller
from mmrkd.models.heads import KnowledgeBridge, OutputMimicry, Peer, TeacherHead
from mmrkd.models.losses import (
    FeatureAttentionLoss,
    FeatureCosineLoss,
    FeatureMSELoss,
    KLDivergenceLoss,
    SigmoidKLLoss,
)
from mmrkd.models.methods import (
    CWD,
    ERA,
    FGD,
    KD,
    LD,
    MGD,
    PKD,
    AttentionTransfer,
    CrossKD,
    DeepMutualLearning,
    DistillMethod,
    FitNets,
    MethodDict,
    Pair,
    Phase,
    ResidualKD,
    SemiOnlineKD,
)
from mmrkd.models.necks import (
    ChannelStandardizer,
    MultiBranchResidualNeck,
    MultiWidthResidualNeck,
    Projection,
    ResidualAssistantNeck,
)
from mmrkd.models.teacher import FrozenTeacher
from mmrkd.models.variants import Variant
from mmrkd.models.views_preprocessor import ViewsPreprocessor

__all__ = [
    'CWD',
    'ERA',
    'FGD',
    'KD',
    'LD',
    'MGD',
    'PKD',
    'AttentionTransfer',
    'ChannelStandardizer',
    'CrossKD',
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
    'MethodDict',
    'MobileNetV1',
    'MultiBranchResidualNeck',
    'MultiWidthResidualNeck',
    'OutputMimicry',
    'Pair',
    'Peer',
    'Phase',
    'Projection',
    'ResidualAssistantNeck',
    'ResidualKD',
    'ResidualPairBackbone',
    'SemiOnlineKD',
    'SigmoidKLLoss',
    'TeacherHead',
    'Variant',
    'ViewsPreprocessor',
    'WideResNet',
]
