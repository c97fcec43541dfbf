"""A control of TRED from CIFAR-100 to CIFAR-10: L2-SP, which holds the student to its starting point."""

_base_ = './tred_wrn40-2_wrn40-2_1xb128-30e_cifar10.py'
model = dict(methods=[dict(type='mmrkd.L2SP', w_sp=1.0)])
