"""Distillation methods: one file each."""

from mmrkd.models.methods.attention_transfer import AttentionTransfer
from mmrkd.models.methods.base import DistillMethod, Pair, Phase, Progress
from mmrkd.models.methods.crld import CRLD
from mmrkd.models.methods.crosskd import CrossKD
from mmrkd.models.methods.cwd import CWD
from mmrkd.models.methods.deep_mutual_learning import DeepMutualLearning
from mmrkd.models.methods.dist import DIST
from mmrkd.models.methods.dkd import DKD
from mmrkd.models.methods.dskd import DSKD
from mmrkd.models.methods.dwpose import DWPose
from mmrkd.models.methods.era import ERA
from mmrkd.models.methods.fgd import FGD
from mmrkd.models.methods.fitnets import FitNets
from mmrkd.models.methods.gdkd import GDKD
from mmrkd.models.methods.kd import KD
from mmrkd.models.methods.l2_sp import L2SP
from mmrkd.models.methods.ld import LD
from mmrkd.models.methods.method_dict import DEFAULT, MethodDict
from mmrkd.models.methods.mgd import MGD
from mmrkd.models.methods.online_ensemble import OnlineEnsemble
from mmrkd.models.methods.pkd import PKD
from mmrkd.models.methods.r2kd import R2KD
from mmrkd.models.methods.rdd import RDD
from mmrkd.models.methods.residual_kd import ResidualKD
from mmrkd.models.methods.semi_online_kd import SemiOnlineKD
from mmrkd.models.methods.sskd import SSKD
from mmrkd.models.methods.tred import TRED
from mmrkd.models.methods.wttm import WTTM

__all__ = [
    'AttentionTransfer',
    'CRLD',
    'CWD',
    'CrossKD',
    'DEFAULT',
    'DIST',
    'DKD',
    'DSKD',
    'DWPose',
    'DeepMutualLearning',
    'DistillMethod',
    'ERA',
    'FGD',
    'FitNets',
    'GDKD',
    'KD',
    'L2SP',
    'LD',
    'MGD',
    'MethodDict',
    'OnlineEnsemble',
    'PKD',
    'Pair',
    'Phase',
    'Progress',
    'R2KD',
    'RDD',
    'ResidualKD',
    'SSKD',
    'SemiOnlineKD',
    'TRED',
    'WTTM',
]
