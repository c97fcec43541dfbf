"""The student alone: RetinaNet-R18 with an eighth of the channels, neck and head as its teacher's, on DeepPCB."""

_base_ = [
    '../_base_/models/retinanet_r18_small.py',
    '../_base_/datasets/deeppcb.py',
    '../_base_/schedules/adamw_cosine_24e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    neck=dict(out_channels=64), bbox_head=dict(num_classes=6, in_channels=64, feat_channels=64, stacked_convs=2)
)
train_cfg = dict(val_interval=4)
