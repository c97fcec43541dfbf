"""SSKD on CIFAR-10: the teacher's head learns beside the student, the images are turned on the device."""

_base_ = '../_base_/pairs/resnet18w32_resnet18w8_cifar10.py'
model = dict(methods=[dict(type='mmrkd.SSKD', w_ce=0.1, w_kd=0.9, w_tf=2.7, w_ss=10.0)])
