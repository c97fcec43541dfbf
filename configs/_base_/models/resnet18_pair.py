"""ResNet-18 for ImageNet, separated into student and assistant.

`python tools/separate_model.py mmpretrain::resnet/resnet18_8xb32_in1k.py` finds 55 and 30 channels, and 54 and 29
where a detector reads all four stages. Detectors start from what is trained here: 54 and 30 fit both budgets.
"""

_base_ = 'mmpretrain::_base_/models/resnet18.py'
part = dict(type='ResNet', depth=18, num_stages=4, out_indices=(3,), style='pytorch')
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmrkd.ResidualPairBackbone',
        student=dict(base_channels=54, stem_channels=54, **part),
        assistant=dict(base_channels=30, stem_channels=30, **part),
        out_channels=[512],
    )
)
custom_imports = dict(imports=['mmrkd'], allow_failed_imports=False)
