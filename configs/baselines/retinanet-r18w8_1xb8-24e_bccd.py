"""The student alone: RetinaNet-R18 with an eighth of the channels on BCCD; cells are larger than circuit defects."""

_base_ = [
    '../_base_/models/retinanet_r18_small.py',
    '../_base_/datasets/bccd.py',
    '../_base_/schedules/adamw_cosine_24e.py',
    '../_base_/default_runtime.py',
]
model = dict(neck=dict(num_outs=4), bbox_head=dict(num_classes=3, anchor_generator=dict(strides=[8, 16, 32, 64])))
