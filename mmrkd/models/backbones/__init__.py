"""Backbones that the published recipes need and neither mmdet nor mmpretrain has."""

from mmrkd.models.backbones.mobilenet_v1 import MobileNetV1
from mmrkd.models.backbones.residual_pair_backbone import ResidualPairBackbone
from mmrkd.models.backbones.residual_sum import ResidualSum
from mmrkd.models.backbones.separation import ComputeCost, Separation, measure, separate
from mmrkd.models.backbones.wide_resnet import WideResNet

__all__ = [
    'ComputeCost',
    'MobileNetV1',
    'ResidualPairBackbone',
    'ResidualSum',
    'Separation',
    'WideResNet',
    'measure',
    'separate',
]
