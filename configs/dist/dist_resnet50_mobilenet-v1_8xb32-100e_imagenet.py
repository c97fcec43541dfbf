"""DIST on ImageNet with the release's recipe: ResNet-50 (76.55 top-1) teaches MobileNet-V1."""

_base_ = '../_base_/pairs/resnet50_mobilenet-v1_imagenet.py'
model = dict(
    methods=[dict(type='mmrkd.DIST', beta=2.0, gamma=2.0, tau=1.0)],
)
