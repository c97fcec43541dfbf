"""ImageNet in two views: the weak one is that of the plain config, the strong one has a crop and flip of its own."""

_base_ = ['./imagenet.py', '../fixmatch_operations.py']
weak = [
    dict(type='RandomResizedCrop', scale=224),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
]
strong = [*weak, _base_.strong_operations, dict(_base_.grey_square, magnitude_range=(0, 112))]
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='MultiView', num_views=[1, 1], transforms=[weak, strong]),
            dict(type='PackInputs'),
        ]
    )
)
