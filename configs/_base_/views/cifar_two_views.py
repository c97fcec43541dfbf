"""Two views of an image of CIFAR: the weak one is the plain one, the strong one has a crop and flip of its own."""

_base_ = '../fixmatch_operations.py'
weak = [
    dict(type='RandomCrop', crop_size=32, padding=4, padding_mode='reflect'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
]
strong = [*weak, _base_.strong_operations, dict(_base_.grey_square, magnitude_range=(0, 16))]
two_views = [
    dict(type='LoadImageFromFile'),
    dict(type='MultiView', num_views=[1, 1], transforms=[weak, strong]),
    dict(type='PackInputs'),
]
