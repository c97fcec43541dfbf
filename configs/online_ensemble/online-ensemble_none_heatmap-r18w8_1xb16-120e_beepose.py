"""OnlineEnsemble on bees: three branches of the student, which share all but the last stage, and no teacher."""

_base_ = '../baselines/heatmap-r18w8_1xb16-120e_beepose.py'
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    methods=[dict(type='mmrkd.OnlineEnsemble', split='backbone.layer4')],
)
