"""SSKD on ImageNet: ResNet-34 (73.62 top-1) teaches ResNet-18; its head learns beside the student."""

_base_ = '../_base_/pairs/resnet34_resnet18_imagenet.py'
model = dict(methods=[dict(type='mmrkd.SSKD', w_ce=0.1, w_kd=0.9, w_tf=2.7, w_ss=10.0)])
