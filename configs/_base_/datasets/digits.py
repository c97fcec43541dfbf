"""Digit scenes: handwritten digits on cluttered paper, COCO format, at 160 x 160 pixels.

`python tools/make_digits.py --root data/digits` writes the set in a few seconds; it needs no download. The folder is
`digits/` below `$MMRKD_DATA` (default: `data`). Training tunes on `val`; `tools/test.py` reports `test`. No flips: a
mirrored digit is no digit.
"""

_base_ = '../small_coco.py'
data_root = '{{$MMRKD_DATA:data}}/digits/'
image_size = (160, 160)
metainfo = dict(classes=('0', '1', '2', '3', '4', '5', '6', '7', '8', '9'))
where = dict(data_root=data_root, metainfo=metainfo)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(dataset=dict(**where, pipeline=train_pipeline, data_prefix=dict(img='images/train/')))
val_dataloader = dict(dataset=dict(**where, pipeline=test_pipeline, data_prefix=dict(img='images/val/')))
test_dataloader = dict(dataset=dict(**where, pipeline=test_pipeline, data_prefix=dict(img='images/test/')))
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = dict(ann_file=data_root + 'annotations/test.json')
