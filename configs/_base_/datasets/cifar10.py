"""CIFAR-10 as 60,000 image files in class folders, 32 x 32 pixels: `train/<class>/*.jpg` and `test/<class>/*.jpg`.

The folder is `cifar10/` below `$MMRKD_DATA` (default: `data`). There is no validation split: both loops use `test`.
"""

data_root = '{{$MMRKD_DATA:data}}/cifar10/'
metainfo = dict(classes=('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck'))
images = dict(type='CustomDataset', _scope_='mmpretrain', data_root=data_root, metainfo=metainfo)
data_preprocessor = dict(
    type='ClsDataPreprocessor',
    _scope_='mmpretrain',
    num_classes=10,
    mean=[125.307, 122.950, 113.865],
    std=[62.993, 62.089, 66.705],
    to_rgb=True,
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomCrop', crop_size=32, padding=4, padding_mode='reflect'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(**images, data_prefix='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**images, data_prefix='test', pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', _scope_='mmpretrain', topk=(1,))
test_evaluator = val_evaluator
