"""Distillation methods: one file each."""

from mmrkd.models.methods.attention_transfer import AttentionTransfer
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.methods.deep_mutual_learning import DeepMutualLearning
from mmrkd.models.methods.era import ERA
from mmrkd.models.methods.fitnets import FitNets
from mmrkd.models.methods.kd import KD
from mmrkd.models.methods.residual_kd import ResidualKD
from mmrkd.models.methods.semi_online_kd import SemiOnlineKD

__all__ = [
    'ERA',
    'KD',
    'AttentionTransfer',
    'DeepMutualLearning',
    'DistillMethod',
    'FitNets',
    'Pair',
    'ResidualKD',
    'SemiOnlineKD',
]
