"""The teacher: Simple Baseline on a ResNet-18 with half of the channels on bees."""

_base_ = './heatmap-r18w8_1xb16-120e_beepose.py'
model = dict(
    backbone=dict(base_channels=32, stem_channels=32), head=dict(in_channels=256, deconv_out_channels=(64, 64, 64))
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
