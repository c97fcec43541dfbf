"""RetinaNet-R18 with three sixteenths of the channels on DeepPCB, alone: what ResidualKD separates."""

_base_ = './retinanet-r18w8_1xb8-24e_deeppcb.py'
model = dict(
    backbone=dict(base_channels=12, stem_channels=12),
    neck=dict(in_channels=[12, 24, 48, 96], out_channels=24),
    bbox_head=dict(in_channels=24, feat_channels=24),
)
