"""SemiOnlineKD on DeepPCB. First train the teacher: configs/baselines/retinanet-r18w32_1xb8-36e_deeppcb.py."""

_base_ = '../baselines/retinanet-r18w8_1xb8-24e_deeppcb.py'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='{{fileDirname}}/../baselines/retinanet-r18w32_1xb8-36e_deeppcb.py',
        ckpt='{{$MMRKD_WORK_DIRS:work_dirs}}/retinanet-r18w32_1xb8-36e_deeppcb/epoch_36.pth',
    ),
    methods=[
        dict(type='mmrkd.SemiOnlineKD', w_teacher_bridge=0.2, w_student_bridge=0.2, w_bridge_student=0.2),
    ],
)
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'bridge'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'bridge'))
