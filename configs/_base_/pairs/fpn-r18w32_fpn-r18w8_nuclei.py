"""Student and teacher on nuclei; a method is still to be named."""

_base_ = '../../baselines/fpn-r18w8_1xb8-48e_nuclei.py'
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='{{fileDirname}}/../../baselines/fpn-r18w32_1xb8-48e_nuclei.py',
        ckpt='{{$MMRKD_WORK_DIRS:work_dirs}}/fpn-r18w32_1xb8-48e_nuclei/epoch_48.pth',
    ),
)
