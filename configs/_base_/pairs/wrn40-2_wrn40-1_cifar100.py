"""Student and teacher on CIFAR-100; a method is still to be named."""

_base_ = '../../baselines/wrn40-1_1xb64-240e_cifar100.py'
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='{{fileDirname}}/../../baselines/wrn40-2_1xb64-240e_cifar100.py',
        ckpt='{{$MMRKD_WORK_DIRS:work_dirs}}/wrn40-2_1xb64-240e_cifar100/epoch_240.pth',
    ),
)
