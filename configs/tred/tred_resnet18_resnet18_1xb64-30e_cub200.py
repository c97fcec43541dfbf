"""TRED from ImageNet to 200 species of birds: ResNet-18 starts from the source model."""

_base_ = [
    'mmpretrain::_base_/models/resnet18.py',
    '../_base_/datasets/cub200.py',
    '../_base_/schedules/sgd_cosine_30e.py',
    'mmpretrain::_base_/default_runtime.py',
]
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=dict(_base_.model, head=dict(_base_.model.head, num_classes=200)),
    teacher=dict(
        cfg='mmpretrain::resnet/resnet18_8xb32_in1k.py',
        ckpt='https://mmassets.onedl.ai/mmclassification/v0/resnet/resnet18_8xb32_in1k_20210831-fbbb1da6.pth',
    ),
    init_student='backbone',
    methods=[dict(type='mmrkd.TRED', w_reg=1.0, w_mmd=0.1)],
)
optim_wrapper = dict(optimizer=dict(lr=0.01))
