"""The control of CRLD on CIFAR-100: the labels of both views, without the teacher."""

_base_ = './crld_wrn40-2_wrn40-1_1xb64-240e_cifar100.py'
model = dict(methods=[dict(type='mmrkd.CRLD', w_ce=1.0, w_within=0.0, w_cross=0.0)])
