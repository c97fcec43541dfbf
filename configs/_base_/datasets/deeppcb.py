"""DeepPCB: 1,500 images of printed circuit boards, six kinds of defect, COCO format, at 320 x 320 pixels.

The folder is `deeppcb/` below `$MMRKD_DATA` (default: `data`). Training tunes on `val`; `tools/test.py` reports `test`.
"""

_base_ = '../small_coco.py'
data_root = '{{$MMRKD_DATA:data}}/deeppcb/'
image_size = (320, 320)
metainfo = dict(classes=('open', 'short', 'mousebite', 'spur', 'copper', 'pin-hole'))
where = dict(data_root=data_root, metainfo=metainfo)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackDetInputs'),
]
shifted_pipeline = [*train_pipeline[:-1], dict(type='RandomShift', prob=1.0, max_shift_px=32), train_pipeline[-1]]
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
