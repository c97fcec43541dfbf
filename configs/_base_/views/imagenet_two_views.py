"""Two views of an image of ImageNet: the weak one is that of the plain config, the strong one has a crop of its own."""

_base_ = '../fixmatch_operations.py'
weak = [
    dict(type='RandomResizedCrop', scale=224),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
]
strong = [*weak, _base_.strong_operations, dict(_base_.grey_square, magnitude_range=(0, 112))]
two_views = [
    dict(type='LoadImageFromFile'),
    dict(type='MultiView', num_views=[1, 1], transforms=[weak, strong]),
    dict(type='PackInputs'),
]
