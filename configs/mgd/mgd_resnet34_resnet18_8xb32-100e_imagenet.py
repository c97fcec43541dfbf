"""MGD on ImageNet: ResNet-34 (73.62 top-1) teaches ResNet-18."""

_base_ = '../_base_/pairs/resnet34_resnet18_imagenet.py'
model = dict(
    methods=[dict(type='mmrkd.MGD', w_mgd=7e-5, ratio=0.15)],
)
