"""Student and teacher with other heads on BCCD; a method is still to be named."""

_base_ = '../../baselines/gfl-r18w8_1xb8-48e_bccd.py'
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='{{fileDirname}}/../../baselines/retinanet-r18w32_1xb8-affine-96e_bccd.py',
        ckpt='{{$MMRKD_WORK_DIRS:work_dirs}}/retinanet-r18w32_1xb8-affine-96e_bccd/epoch_96.pth',
    ),
)
