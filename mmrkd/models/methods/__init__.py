"""Distillation methods: one file each."""

from mmrkd.models.methods.attention_transfer import AttentionTransfer
from mmrkd.models.methods.base import DistillMethod, Pair, Phase
from mmrkd.models.methods.crosskd import CrossKD
from mmrkd.models.methods.cwd import CWD
from mmrkd.models.methods.deep_mutual_learning import DeepMutualLearning
from mmrkd.models.methods.era import ERA
from mmrkd.models.methods.fgd import FGD
from mmrkd.models.methods.fitnets import FitNets
from mmrkd.models.methods.kd import KD
from mmrkd.models.methods.ld import LD
from mmrkd.models.methods.method_dict import DEFAULT, MethodDict
from mmrkd.models.methods.mgd import MGD
from mmrkd.models.methods.pkd import PKD
from mmrkd.models.methods.residual_kd import ResidualKD
from mmrkd.models.methods.semi_online_kd import SemiOnlineKD

__all__ = [
    'CWD',
    'DEFAULT',
    'ERA',
    'FGD',
    'KD',
    'LD',
    'MGD',
    'PKD',
    'AttentionTransfer',
    'CrossKD',
    'DeepMutualLearning',
    'DistillMethod',
    'FitNets',
    'MethodDict',
    'Pair',
    'Phase',
    'ResidualKD',
    'SemiOnlineKD',
]
