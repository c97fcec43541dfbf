"""TRED on CIFAR-10 with a wider source model of the same classes: a check that it runs, no transfer."""

_base_ = '../_base_/pairs/resnet18w32_resnet18w8_cifar10.py'
model = dict(methods=[dict(type='mmrkd.TRED', w_reg=1.0, w_mmd=0.1)])
