"""DKD on ImageNet with the release's weights: ResNet-34 (73.62 top-1) teaches ResNet-18."""

_base_ = '../_base_/pairs/resnet34_resnet18_imagenet.py'
model = dict(
    methods=[dict(type='mmrkd.DKD', alpha=1.0, beta=0.5, tau=1.0)],
)
custom_hooks = [dict(type='mmrkd.DistillScheduleHook', warmup=1)]
