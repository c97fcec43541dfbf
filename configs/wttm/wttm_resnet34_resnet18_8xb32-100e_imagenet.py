"""WTTM on ImageNet: ResNet-34 (73.62 top-1) teaches ResNet-18."""

_base_ = '../_base_/pairs/resnet34_resnet18_imagenet.py'
model = dict(
    methods=[dict(type='mmrkd.WTTM', w_ttm=4.0, gamma=0.2)],
)
