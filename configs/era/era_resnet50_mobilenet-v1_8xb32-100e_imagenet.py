"""ERA on ImageNet with the authors' recipe: ResNet-50 (76.55 top-1) teaches MobileNet-V1."""

_base_ = [
    '../_base_/models/mobilenet_v1.py',
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
        cfg='mmpretrain::resnet/resnet50_8xb32_in1k.py',
        ckpt='https://mmassets.onedl.ai/mmclassification/v0/resnet/resnet50_8xb32_in1k_20210831-ea4938fc.pth',
    ),
    methods=[
        dict(type='mmrkd.ERA', num_branches=4, num_blocks=2, w_task=1.0, w_kd=2.0, tau=1.0, w_feat=5.0, w_res=1.0)
    ],
)
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'integrated'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'integrated'))
