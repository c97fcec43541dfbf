"""The teacher of the quick start: RetinaNet-R18 with half of the channels on the embedded digits."""

_base_ = './retinanet-r18w8_1xb8-8e_digits.py'
model = dict(
    backbone=dict(base_channels=32, stem_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    bbox_head=dict(in_channels=64, feat_channels=64, stacked_convs=2),
)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
