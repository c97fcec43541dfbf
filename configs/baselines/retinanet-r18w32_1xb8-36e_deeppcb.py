"""The teacher: RetinaNet-R18 with half of the channels on DeepPCB."""

_base_ = './retinanet-r18w8_1xb8-24e_deeppcb.py'
max_epochs = 36
model = dict(backbone=dict(base_channels=32, stem_channels=32), neck=dict(in_channels=[32, 64, 128, 256]))
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=0, end=max_epochs, T_max=max_epochs, convert_to_iter_based=True),
]
