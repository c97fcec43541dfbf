"""ResidualKD on DeepPCB. First train the teacher: configs/baselines/retinanet-r18w32_1xb8-36e_deeppcb.py."""

_base_ = '../baselines/retinanet-r18w12-pair_1xb8-24e_deeppcb.py'
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='{{fileDirname}}/../baselines/retinanet-r18w32_1xb8-36e_deeppcb.py',
        ckpt='{{$MMRKD_WORK_DIRS:work_dirs}}/retinanet-r18w32_1xb8-36e_deeppcb/epoch_36.pth',
    ),
    methods=[dict(type='mmrkd.ResidualKD')],
)
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'student_alone'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('integrated', 'student_alone'))
