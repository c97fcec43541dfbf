"""The teacher: WRN-40-2 on CIFAR-10."""

_base_ = './wrn40-1_1xb128-200e_cifar10.py'
model = dict(backbone=dict(widen_factor=2), head=dict(in_channels=128))
