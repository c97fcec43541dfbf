"""The student of the quick start, alone: RetinaNet-R18 with an eighth of the channels on the embedded digits."""

_base_ = [
    '../_base_/models/retinanet_r18_small.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/adamw_cosine_8e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(std=[64.0, 64.0, 64.0]),
    bbox_head=dict(num_classes=10, anchor_generator=dict(scales_per_octave=2, ratios=[1.0, 2.0])),
)
optim_wrapper = dict(optimizer=dict(lr=4e-3))
