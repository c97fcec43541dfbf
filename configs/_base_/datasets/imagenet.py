"""ImageNet-1k as mmpretrain reads it, from the folder `imagenet/` below `$MMRKD_DATA` (default: `data`).

Training: random resized crop to 224 and flip. Validation: shorter edge to 256, centre crop of 224.
"""

_base_ = 'mmpretrain::_base_/datasets/imagenet_bs32.py'
data_root = '{{$MMRKD_DATA:data}}/imagenet'

train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
