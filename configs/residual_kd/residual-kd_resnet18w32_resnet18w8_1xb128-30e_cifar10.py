"""The baseline: the model that was not separated mimics the teacher as ResidualKD's S does; there is no assistant."""

_base_ = '../baselines/resnet18w8_1xb128-30e_cifar10.py'
_base_.model.backbone = dict(type='mmrkd.ResidualPairBackbone', student=_base_.model.backbone, assistant=None)
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='{{fileDirname}}/../baselines/resnet18w32_1xb128-30e_cifar10.py',
        ckpt='{{$MMRKD_WORK_DIRS:work_dirs}}/resnet18w32_1xb128-30e_cifar10/epoch_30.pth',
    ),
    methods=[dict(type='mmrkd.ResidualKD', w_assistant=0.0)],
)
