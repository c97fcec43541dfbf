"""ResidualKD on CIFAR-10. First train the teacher: configs/baselines/resnet18w32_1xb128-30e_cifar10.py."""

_base_ = '../baselines/resnet18w8-pair_1xb128-30e_cifar10.py'
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='{{fileDirname}}/../baselines/resnet18w32_1xb128-30e_cifar10.py',
        ckpt='{{$MMRKD_WORK_DIRS:work_dirs}}/resnet18w32_1xb128-30e_cifar10/epoch_30.pth',
    ),
    methods=[dict(type='mmrkd.ResidualKD')],
)
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'student_alone'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('integrated', 'student_alone'))
