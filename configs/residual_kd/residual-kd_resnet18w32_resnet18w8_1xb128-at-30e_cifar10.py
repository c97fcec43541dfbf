"""The baseline of ResidualKD with AT: the model that was not separated, with mimicry and attention transfer."""

_base_ = './residual-kd_resnet18w32_resnet18w8_1xb128-30e_cifar10.py'
model = dict(
    methods=[
        dict(type='mmrkd.ResidualKD', w_assistant=0.0),
        dict(
            type='mmrkd.AttentionTransfer',
            w_at=50.0,
            student_layers=('backbone.student.layer2', 'backbone.student.layer3', 'backbone'),
            teacher_layers=('backbone.layer2', 'backbone.layer3', 'backbone'),
        ),
    ]
)
