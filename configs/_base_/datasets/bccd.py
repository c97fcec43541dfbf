"""BCCD: 364 photographs of blood cells (640 x 480), three kinds of cell, COCO format, at 320 x 240 pixels.

The folder is `bccd/` below `$MMRKD_DATA` (default: `data`). Training tunes on `val`; `tools/test.py` reports `test`.
"""

_base_ = '../small_coco.py'
data_root = '{{$MMRKD_DATA:data}}/bccd/'
image_size = (320, 240)
metainfo = dict(classes=('RBC', 'WBC', 'Platelets'))
where = dict(data_root=data_root, metainfo=metainfo)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackDetInputs'),
]
affine_pipeline = [
    *train_pipeline[:-1],
    dict(
        type='RandomAffine',
        max_rotate_degree=0,
        max_translate_ratio=0.1,
        scaling_ratio_range=(0.75, 1.33),
        max_shear_degree=0,
    ),
    dict(type='PhotoMetricDistortion'),
    train_pipeline[-1],
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(dataset=dict(**where, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**where, pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(**where, pipeline=test_pipeline))
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = dict(ann_file=data_root + 'annotations/test.json')
