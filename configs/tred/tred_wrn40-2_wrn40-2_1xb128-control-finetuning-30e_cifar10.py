"""A control of TRED from CIFAR-100 to CIFAR-10: plain fine-tuning from the source model."""

_base_ = './tred_wrn40-2_wrn40-2_1xb128-30e_cifar10.py'
model = dict(methods=[])
check = dict(ignore=['no-method'])
