"""The plain feature hint on CIFAR-10, the baseline beside ERA."""

_base_ = '../_base_/pairs/resnet18w32_resnet18w8_cifar10.py'
model = dict(methods=[dict(type='mmrkd.FitNets', w_feat=5.0)])
