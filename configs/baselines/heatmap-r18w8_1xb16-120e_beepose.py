"""The student: Simple Baseline on a ResNet-18 with an eighth of the channels on bees, without a teacher."""

_base_ = [
    '../_base_/pose_runtime.py',
    '../_base_/datasets/beepose.py',
    '../_base_/models/heatmap_r18_small.py',
    '../_base_/schedules/adamw_cosine_24e.py',
]
max_epochs = 120
train_cfg = dict(max_epochs=max_epochs, val_interval=20)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=0, end=max_epochs, T_max=max_epochs, convert_to_iter_based=True),
]
