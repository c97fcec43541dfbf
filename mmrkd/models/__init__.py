"""Everything that is built from a config under the scope ``mmrkd``."""

from mmrkd.models.backbones import MobileNetV1, WideResNet
from mmrkd.models.distiller import Distiller
from mmrkd.models.heads import KnowledgeBridge, OutputMimicry, TeacherHead
from mmrkd.models.losses import FeatureMSELoss, KLDivergenceLoss, SigmoidKLLoss
from mmrkd.models.methods import ERA, KD, DeepMutualLearning, DistillMethod, FitNets, SemiOnlineKD
from mmrkd.models.necks import ChannelStandardizer, MultiBranchResidualNeck
from mmrkd.models.teacher import FrozenTeacher

__all__ = [
    'ChannelStandardizer',
    'DeepMutualLearning',
    'DistillMethod',
    'Distiller',
    'ERA',
    'FeatureMSELoss',
    'FitNets',
    'FrozenTeacher',
    'KD',
    'KLDivergenceLoss',
    'KnowledgeBridge',
    'MobileNetV1',
    'MultiBranchResidualNeck',
    'OutputMimicry',
    'SemiOnlineKD',
    'SigmoidKLLoss',
    'TeacherHead',
    'WideResNet',
]
