"""CIFAR-100 as 60,000 image files in class folders, 32 x 32 pixels: `train/<class>/*` and `test/<class>/*`.

The folder is `cifar100/` below `$MMRKD_DATA` (default: `data`). There is no validation split: both loops use `test`.
"""

_base_ = './cifar10.py'
data_root = '{{$MMRKD_DATA:data}}/cifar100/'
images = dict(type='CustomDataset', _scope_='mmpretrain', data_root=data_root, _delete_=True)
metainfo = None  # the names of the folders
data_preprocessor = dict(num_classes=100, mean=[129.304, 124.070, 112.434], std=[68.170, 65.392, 70.418])
train_dataloader = dict(batch_size=64, dataset=dict(**images, data_prefix='train', pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(**images, data_prefix='test', pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
