"""The teacher of RDD: as fpn-r18w32_1xb8-48e_nuclei.py, with an auxiliary head on the level of stride 16."""

_base_ = './fpn-r18w32_1xb8-48e_nuclei.py'
model = dict(
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=64,
        in_index=2,
        channels=32,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=3,
        norm_cfg=dict(type='BN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4, avg_non_ignore=True),
    ),
)
