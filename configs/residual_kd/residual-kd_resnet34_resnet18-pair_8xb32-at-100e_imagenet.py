"""ResidualKD with attention transfer on ImageNet: the pair and the methods of the paper's best row (71.54 top-1)."""

_base_ = './residual-kd_resnet34_resnet18-pair_8xb32-100e_imagenet.py'
model = dict(
    methods=[
        dict(type='mmrkd.ResidualKD', standardize=False),
        dict(
            type='mmrkd.AttentionTransfer',
            w_at=500.0,
            student_layers=('backbone.student.layer2', 'backbone.student.layer3', 'backbone'),
            teacher_layers=('backbone.layer2', 'backbone.layer3', 'backbone'),
        ),
    ]
)
