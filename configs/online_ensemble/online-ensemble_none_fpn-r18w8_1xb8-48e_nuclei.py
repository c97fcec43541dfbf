"""OnlineEnsemble on nuclei: three branches of the student, which share all but the last stage, and no teacher."""

_base_ = '../baselines/fpn-r18w8_1xb8-48e_nuclei.py'
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    methods=[dict(type='mmrkd.OnlineEnsemble', split='layer4')],
)
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'ensemble'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'ensemble'))
