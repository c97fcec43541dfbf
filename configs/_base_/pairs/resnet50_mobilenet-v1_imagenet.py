"""ResNet-50 teaches MobileNet-V1 on ImageNet; a method is still to be named."""

_base_ = [
    '../models/mobilenet_v1.py',
    '../datasets/imagenet.py',
    '../schedules/imagenet_sgd_100e.py',
    'mmpretrain::_base_/default_runtime.py',
]
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='mmpretrain::resnet/resnet50_8xb32_in1k.py',
        ckpt='https://mmassets.onedl.ai/mmclassification/v0/resnet/resnet50_8xb32_in1k_20210831-ea4938fc.pth',
    ),
)
