"""DIST on CIFAR-10, with the temperature that the release has on CIFAR-100."""

_base_ = '../_base_/pairs/resnet18w32_resnet18w8_cifar10.py'
model = dict(methods=[dict(type='mmrkd.DIST', beta=2.0, gamma=2.0, tau=4.0)])
