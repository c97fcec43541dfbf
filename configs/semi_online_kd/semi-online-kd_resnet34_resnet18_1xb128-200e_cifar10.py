"""SemiOnlineKD with the paper's recipe on CIFAR-10: mmpretrain's ResNet-34 (95.34 top-1) teaches ResNet-18."""

_base_ = [
    'mmpretrain::_base_/models/resnet18_cifar.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/sgd_step_200e.py',
    '../_base_/cls_runtime.py',
]
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='mmpretrain::resnet/resnet34_8xb16_cifar10.py',
        ckpt='https://mmassets.onedl.ai/mmclassification/v0/resnet/resnet34_b16x8_cifar10_20210528-a8aa36a6.pth',
    ),
    methods=[dict(type='mmrkd.SemiOnlineKD', split='layer4', tau=4.0)],
)
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'bridge'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'bridge'))
