"""Student and teacher on CIFAR-100 in two views; a method is still to be named."""

_base_ = [
    '../models/wrn_cifar100.py',
    '../datasets/cifar100_two_views.py',
    '../schedules/sgd_step_240e.py',
    '../cls_runtime.py',
]
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
