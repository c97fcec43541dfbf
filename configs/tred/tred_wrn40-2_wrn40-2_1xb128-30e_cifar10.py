"""TRED from CIFAR-100 to CIFAR-10: WRN-40-2 starts from the source model and keeps to what matters of it."""

_base_ = [
    '../_base_/models/wrn_cifar.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/sgd_cosine_30e.py',
    '../_base_/cls_runtime.py',
]
runner_type = 'mmrkd.Runner'
student = dict(_base_.model, backbone=dict(_base_.model.backbone, widen_factor=2))
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=dict(student, head=dict(_base_.model.head, in_channels=128)),
    teacher=dict(
        cfg='{{fileDirname}}/../baselines/wrn40-2_1xb64-240e_cifar100.py',
        ckpt='{{$MMRKD_WORK_DIRS:work_dirs}}/wrn40-2_1xb64-240e_cifar100/epoch_240.pth',
    ),
    init_student='backbone',
    methods=[dict(type='mmrkd.TRED', w_reg=1.0, w_mmd=0.1)],
)
optim_wrapper = dict(optimizer=dict(lr=0.01))
