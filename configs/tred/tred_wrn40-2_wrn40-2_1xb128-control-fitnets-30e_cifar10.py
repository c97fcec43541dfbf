"""A control of TRED from CIFAR-100 to CIFAR-10: a hint on all of the source's features."""

_base_ = './tred_wrn40-2_wrn40-2_1xb128-30e_cifar10.py'
model = dict(methods=[dict(type='mmrkd.FitNets', w_feat=1.0)])
