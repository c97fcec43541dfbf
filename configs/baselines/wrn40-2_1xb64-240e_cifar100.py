"""The teacher: WRN-40-2 on CIFAR-100."""

_base_ = './wrn40-1_1xb64-240e_cifar100.py'
model = dict(backbone=dict(widen_factor=2), head=dict(in_channels=128))
