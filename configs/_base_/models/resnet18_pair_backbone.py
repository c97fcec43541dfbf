"""The separated ResNet-18 as the backbone of a detector, with the weights that its training on ImageNet gave."""

part = dict(
    type='ResNet',
    depth=18,
    num_stages=4,
    frozen_stages=1,
    norm_cfg=dict(type='BN', requires_grad=True),
    norm_eval=True,
    style='pytorch',
)
pair_backbone = dict(
    type='mmrkd.ResidualPairBackbone',
    student=dict(base_channels=54, stem_channels=54, **part),
    assistant=dict(base_channels=30, stem_channels=30, **part),
    out_channels=[64, 128, 256, 512],
    init_cfg=dict(
        type='Pretrained',
        checkpoint='{{$MMRKD_WORK_DIRS:work_dirs}}/residual-kd_resnet34_resnet18-pair_8xb32-100e_imagenet/epoch_100.pth',
        prefix='backbone.',
    ),
)
custom_imports = dict(imports=['mmrkd'], allow_failed_imports=False)
