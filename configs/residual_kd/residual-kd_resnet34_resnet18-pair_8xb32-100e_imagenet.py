"""ResidualKD on ImageNet: ResNet-34 (73.62 top-1) teaches a ResNet-18 that was separated into student and assistant."""

_base_ = [
    '../_base_/models/resnet18_pair.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_sgd_100e.py',
    'mmpretrain::_base_/default_runtime.py',
]
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='mmpretrain::resnet/resnet34_8xb32_in1k.py',
        ckpt='https://mmassets.onedl.ai/mmclassification/v0/resnet/resnet34_8xb32_in1k_20210831-f257d4e6.pth',
    ),
    methods=[dict(type='mmrkd.ResidualKD', standardize=False)],
)
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'student_alone'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('integrated', 'student_alone'))
