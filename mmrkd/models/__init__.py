"""Everything that is built from a config under the scope ``mmrkd``."""

from mmrkd.models.backbones import MobileNetV1
from mmrkd.models.distiller import Distiller
from mmrkd.models.heads import TeacherHead
from mmrkd.models.losses import FeatureMSELoss, KLDivergenceLoss, SigmoidKLLoss
from mmrkd.models.methods import ERA, DistillMethod, FitNets
from mmrkd.models.necks import ChannelStandardizer, MultiBranchResidualNeck
from mmrkd.models.teacher import FrozenTeacher

__all__ = [
    'ERA',
    'ChannelStandardizer',
    'DistillMethod',
    'Distiller',
    'FeatureMSELoss',
    'FitNets',
    'FrozenTeacher',
    'KLDivergenceLoss',
    'MobileNetV1',
    'MultiBranchResidualNeck',
    'SigmoidKLLoss',
    'TeacherHead',
]
