"""Plain KD on the dense logits, DeepPCB, the baseline beside SemiOnlineKD."""

_base_ = '../baselines/retinanet-r18w8_1xb8-24e_deeppcb.py'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='{{fileDirname}}/../baselines/retinanet-r18w32_1xb8-36e_deeppcb.py',
        ckpt='{{$MMRKD_WORK_DIRS:work_dirs}}/retinanet-r18w32_1xb8-36e_deeppcb/epoch_36.pth',
    ),
    methods=[dict(type='mmrkd.KD', w_kd=0.2, tau=1.0)],
)
