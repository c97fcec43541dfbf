"""ResNet-34 teaches ResNet-18 on ImageNet in two views; a method is still to be named."""

_base_ = [
    'mmpretrain::_base_/models/resnet18.py',
    '../datasets/imagenet_two_views.py',
    '../schedules/imagenet_sgd_100e.py',
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
)
