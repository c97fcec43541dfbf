"""DIST on ImageNet with the release's recipe: ResNet-34 (73.62 top-1) teaches ResNet-18."""

_base_ = '../_base_/pairs/resnet34_resnet18_imagenet.py'
model = dict(
    methods=[dict(type='mmrkd.DIST', beta=2.0, gamma=2.0, tau=1.0)],
)
