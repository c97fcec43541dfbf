"""The student alone: RetinaNet-R18 with an eighth of the channels on BCCD, until it has converged.

Cells are larger than circuit defects: the levels begin at stride 8.
"""

_base_ = [
    '../_base_/models/retinanet_r18_small.py',
    '../_base_/datasets/bccd.py',
    '../_base_/schedules/adamw_cosine_24e.py',
    '../_base_/default_runtime.py',
]
model = dict(neck=dict(num_outs=4), bbox_head=dict(num_classes=3, anchor_generator=dict(strides=[8, 16, 32, 64])))
max_epochs = 48
train_cfg = dict(max_epochs=max_epochs, val_interval=8)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=0, end=max_epochs, T_max=max_epochs, convert_to_iter_based=True),
]
