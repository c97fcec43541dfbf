"""The teacher: ResNet-18 with half of the channels on CIFAR-10."""

_base_ = './resnet18w8_1xb128-30e_cifar10.py'
model = dict(backbone=dict(base_channels=32, stem_channels=32), head=dict(in_channels=256))
