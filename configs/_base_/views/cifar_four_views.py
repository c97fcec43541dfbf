"""Four views, turned by 0, 90, 180 and 270 degrees: one flip for all, then a crop of its own for each."""

crop = dict(type='RandomCrop', crop_size=32, padding=4, padding_mode='reflect')
turns = [[dict(type='Rotate', angle=a, prob=1.0, random_negative_prob=0.0), crop] for a in (90, 180, 270)]
four_views = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='MultiView', num_views=[1, 1, 1, 1], transforms=[[crop], *turns]),
    dict(type='PackInputs'),
]
