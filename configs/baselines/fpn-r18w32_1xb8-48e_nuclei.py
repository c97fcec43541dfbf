"""The teacher: Semantic FPN on a ResNet-18 with half of the channels on nuclei."""

_base_ = './fpn-r18w8_1xb8-48e_nuclei.py'
model = dict(
    backbone=dict(base_channels=32, stem_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    decode_head=dict(in_channels=[64, 64, 64, 64], channels=64),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
