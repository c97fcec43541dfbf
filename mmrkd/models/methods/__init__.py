"""Distillation methods: one file each."""

from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.methods.era import ERA
from mmrkd.models.methods.fitnets import FitNets

__all__ = ['ERA', 'DistillMethod', 'FitNets', 'Pair']
