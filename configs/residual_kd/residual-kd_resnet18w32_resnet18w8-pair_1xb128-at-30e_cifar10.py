"""ResidualKD with attention transfer on CIFAR-10, the combination of the paper's best row."""

_base_ = './residual-kd_resnet18w32_resnet18w8-pair_1xb128-30e_cifar10.py'
model = dict(
    methods=[
        dict(type='mmrkd.ResidualKD'),
        dict(
            type='mmrkd.AttentionTransfer',
            w_at=50.0,
            student_layers=('backbone.student.layer2', 'backbone.student.layer3', 'backbone'),
            teacher_layers=('backbone.layer2', 'backbone.layer3', 'backbone'),
        ),
    ]
)
