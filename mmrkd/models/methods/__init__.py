"""Distillation methods: one file each."""

from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.methods.deep_mutual_learning import DeepMutualLearning
from mmrkd.models.methods.era import ERA
from mmrkd.models.methods.fitnets import FitNets
from mmrkd.models.methods.kd import KD
from mmrkd.models.methods.semi_online_kd import SemiOnlineKD

__all__ = ['ERA', 'KD', 'DeepMutualLearning', 'DistillMethod', 'FitNets', 'Pair', 'SemiOnlineKD']
