"""The baseline: the model that was not separated mimics the teacher as ResidualKD's S does; there is no assistant."""

_base_ = '../baselines/retinanet-r18w12_1xb8-24e_deeppcb.py'
out_channels = [24, 48, 96]  # the neck does not read the first stage
student = dict(_base_.model.backbone, out_indices=(1, 2, 3))
_base_.model.backbone = dict(type='mmrkd.ResidualPairBackbone', student=student, assistant=None)
_base_.model.neck.update(in_channels=out_channels, start_level=0)
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='{{fileDirname}}/../baselines/retinanet-r18w32_1xb8-36e_deeppcb.py',
        ckpt='{{$MMRKD_WORK_DIRS:work_dirs}}/retinanet-r18w32_1xb8-36e_deeppcb/epoch_36.pth',
    ),
    methods=[dict(type='mmrkd.ResidualKD', w_assistant=0.0)],
)
