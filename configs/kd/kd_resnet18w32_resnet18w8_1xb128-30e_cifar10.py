"""Plain KD at T = 4 on CIFAR-10, the baseline beside SemiOnlineKD."""

_base_ = '../_base_/pairs/resnet18w32_resnet18w8_cifar10.py'
model = dict(methods=[dict(type='mmrkd.KD', tau=4.0)])
