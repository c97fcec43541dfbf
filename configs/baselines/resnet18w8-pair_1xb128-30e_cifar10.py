"""ResNet-18w8, separated into student and assistant, on CIFAR-10 without a teacher: does separation itself cost?

Found by `python tools/separate_model.py configs/baselines/resnet18w8_1xb128-30e_cifar10.py --input-size 32`.
"""

_base_ = './resnet18w8_1xb128-30e_cifar10.py'
part = dict(type='ResNet_CIFAR', depth=18, num_stages=4, out_indices=(3,), style='pytorch')
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmrkd.ResidualPairBackbone',
        student=dict(base_channels=7, stem_channels=7, **part),
        assistant=dict(base_channels=3, stem_channels=3, **part),
        out_channels=[64],
    )
)
custom_imports = dict(imports=['mmrkd'], allow_failed_imports=False)
