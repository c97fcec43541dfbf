"""Student and better teacher on DeepPCB, until the student has converged; a method is still to be named."""

_base_ = '../../baselines/retinanet-r18w8_1xb8-48e_deeppcb.py'
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='{{fileDirname}}/../../baselines/retinanet-r18w32_1xb8-shift-24e_deeppcb.py',
        ckpt='{{$MMRKD_WORK_DIRS:work_dirs}}/retinanet-r18w32_1xb8-shift-24e_deeppcb/epoch_24.pth',
    ),
)
