"""DSKD on CIFAR-10: the teacher supervises the first three stages, too."""

_base_ = '../_base_/pairs/resnet18w32_resnet18w8_cifar10.py'
model = dict(methods=[dict(type='mmrkd.DSKD', alpha=1.0, beta=1.0, tau=4.0, alloc='softmax')])
