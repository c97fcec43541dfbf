"""RetinaNet-R18w12, separated into student and assistant, on DeepPCB without a teacher: does separation itself cost?

Found by `python tools/separate_model.py configs/baselines/retinanet-r18w12_1xb8-24e_deeppcb.py --input-size 320`.
"""

_base_ = './retinanet-r18w12_1xb8-24e_deeppcb.py'
part = dict(
    type='ResNet',
    depth=18,
    num_stages=4,
    out_indices=(1, 2, 3),
    frozen_stages=-1,
    norm_cfg=dict(type='BN', requires_grad=True),
    norm_eval=False,
    style='pytorch',
)
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmrkd.ResidualPairBackbone',
        student=dict(base_channels=10, stem_channels=10, **part),
        assistant=dict(base_channels=5, stem_channels=5, **part),
        out_channels=[24, 48, 96],
    ),
    neck=dict(in_channels=[24, 48, 96], start_level=0),
)
custom_imports = dict(imports=['mmrkd'], allow_failed_imports=False)
