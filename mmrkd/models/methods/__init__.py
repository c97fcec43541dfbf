"""Distillation methods: one file each."""

from mmrkd.models.methods.attention_transfer import AttentionTransfer
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.methods.era import ERA
from mmrkd.models.methods.fitnets import FitNets
from mmrkd.models.methods.residual_kd import ResidualKD

__all__ = ['ERA', 'AttentionTransfer', 'DistillMethod', 'FitNets', 'Pair', 'ResidualKD']
