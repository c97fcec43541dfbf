"""GDKD on ImageNet with the release's weights: ResNet-34 (73.62 top-1) teaches ResNet-18."""

_base_ = [
    'mmpretrain::_base_/models/resnet18.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_sgd_100e.py',
    'mmpretrain::_base_/default_runtime.py',
]
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='mmpretrain::resnet/resnet34_8xb32_in1k.py',
        ckpt='https://mmassets.onedl.ai/mmclassification/v0/resnet/resnet34_8xb32_in1k_20210831-f257d4e6.pth',
    ),
    methods=[dict(type='mmrkd.GDKD', k=5, weights=(0.5, 1.0, 1.0), tau=1.0)],
)
custom_hooks = [dict(type='mmrkd.DistillScheduleHook', warmup=1)]
