"""The plain feature hint on DeepPCB, the baseline beside ERA: MSE to the teacher, no MBRNet, no TWI."""

_base_ = '../baselines/retinanet-r18w8_1xb8-24e_deeppcb.py'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='{{fileDirname}}/../baselines/retinanet-r18w32_1xb8-36e_deeppcb.py',
        ckpt='{{$MMRKD_WORK_DIRS:work_dirs}}/retinanet-r18w32_1xb8-36e_deeppcb/epoch_36.pth',
    ),
    methods=[dict(type='mmrkd.FitNets', w_feat=1.0)],
)
