"""Deep mutual learning on DeepPCB: the peer has the architecture of the teacher, whose weights play no part."""

_base_ = '../baselines/retinanet-r18w8_1xb8-24e_deeppcb.py'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='{{fileDirname}}/../baselines/retinanet-r18w32_1xb8-36e_deeppcb.py',
        ckpt='{{$MMRKD_WORK_DIRS:work_dirs}}/retinanet-r18w32_1xb8-36e_deeppcb/epoch_36.pth',
    ),
    methods=[dict(type='mmrkd.DeepMutualLearning', w_kd=0.2)],
)
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'peer'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'peer'))
