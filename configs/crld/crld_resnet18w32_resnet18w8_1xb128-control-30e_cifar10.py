"""The control of CRLD on CIFAR-10: the labels of both views, without the teacher."""

_base_ = './crld_resnet18w32_resnet18w8_1xb128-30e_cifar10.py'
model = dict(methods=[dict(type='mmrkd.CRLD', w_ce=1.0, w_within=0.0, w_cross=0.0)])
