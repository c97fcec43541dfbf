"""The student alone: RetinaNet-R18 with an eighth of the channels on DeepPCB."""

_base_ = [
    '../_base_/models/retinanet_r18_small.py',
    '../_base_/datasets/deeppcb.py',
    '../_base_/schedules/adamw_cosine_24e.py',
    '../_base_/default_runtime.py',
]
model = dict(bbox_head=dict(num_classes=6))
