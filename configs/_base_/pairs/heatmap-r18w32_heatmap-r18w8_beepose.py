"""Student and teacher on bees, with heatmaps; a method is still to be named."""

_base_ = '../../baselines/heatmap-r18w8_1xb16-120e_beepose.py'
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='{{fileDirname}}/../../baselines/heatmap-r18w32_1xb16-120e_beepose.py',
        ckpt='{{$MMRKD_WORK_DIRS:work_dirs}}/heatmap-r18w32_1xb16-120e_beepose/epoch_120.pth',
    ),
)
