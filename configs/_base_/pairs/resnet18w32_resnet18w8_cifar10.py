"""Student and teacher on CIFAR-10; a method is still to be named."""

_base_ = '../../baselines/resnet18w8_1xb128-30e_cifar10.py'
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='{{fileDirname}}/../../baselines/resnet18w32_1xb128-30e_cifar10.py',
        ckpt='{{$MMRKD_WORK_DIRS:work_dirs}}/resnet18w32_1xb128-30e_cifar10/epoch_30.pth',
    ),
)
