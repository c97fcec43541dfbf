"""Student and teacher on CIFAR-10 in two views; a method is still to be named."""

_base_ = [
    '../models/resnet18_cifar_small.py',
    '../datasets/cifar10_two_views.py',
    '../schedules/sgd_cosine_30e.py',
    '../cls_runtime.py',
]
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
