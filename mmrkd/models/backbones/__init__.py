"""Backbones that the published recipes need and mmpretrain does not have."""

from mmrkd.models.backbones.mobilenet_v1 import MobileNetV1
from mmrkd.models.backbones.wide_resnet import WideResNet

__all__ = ['MobileNetV1', 'WideResNet']
