"""ResNet-18 for 32 x 32 images with an eighth of the channels."""

_base_ = 'mmpretrain::_base_/models/resnet18_cifar.py'
model = dict(backbone=dict(base_channels=8, stem_channels=8), head=dict(in_channels=64))
