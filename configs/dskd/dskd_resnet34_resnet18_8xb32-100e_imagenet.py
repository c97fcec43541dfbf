"""DSKD on ImageNet: ResNet-34 (73.62 top-1) teaches ResNet-18 and supervises its first three stages, too."""

_base_ = '../_base_/pairs/resnet34_resnet18_imagenet.py'
model = dict(methods=[dict(type='mmrkd.DSKD', alpha=1.0, beta=1.0, tau=4.0, alloc='softmax')])
