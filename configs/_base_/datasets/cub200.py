"""CUB-200-2011 (birds) in class folders: `train/<class>/*.jpg` with 5,994 images and `test/<class>/*.jpg` with 5,794.

The folder is `cub200/` below `$MMRKD_DATA` (default: `data`). There is no validation split: both loops use `test`.
"""

_base_ = './imagenet.py'
data_root = '{{$MMRKD_DATA:data}}/cub200/'
images = dict(type='CustomDataset', _scope_='mmpretrain', _delete_=True, data_root=data_root)
data_preprocessor = dict(num_classes=200)
train_dataloader = dict(batch_size=64, dataset=dict(**images, data_prefix='train', pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(**images, data_prefix='test', pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
