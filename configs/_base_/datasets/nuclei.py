"""Nuclei of the 2018 Data Science Bowl: 664 microscopy images, interior and boundary of each nucleus, as crops of 256.

The folder is `nuclei/` below `$MMRKD_DATA` (default: `data`). Training tunes on `val`; `tools/test.py` reports `test`.
"""

data_root = '{{$MMRKD_DATA:data}}/nuclei/'
crop_size = (256, 256)
source = dict(
    type='BaseSegDataset',
    _scope_='mmseg',
    data_root=data_root,
    metainfo=dict(classes=('background', 'interior', 'boundary'), palette=[[0, 0, 0], [70, 130, 220], [240, 200, 60]]),
    img_suffix='.jpg',
    seg_map_suffix='.png',
    reduce_zero_label=False,
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=[0.33, 0.33], direction=['horizontal', 'vertical']),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]

loader = dict(num_workers=1, persistent_workers=True)
evaluated = dict(**loader, batch_size=1, drop_last=False, sampler=dict(type='DefaultSampler', shuffle=False))
train_dataloader = dict(
    **loader,
    batch_size=8,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        **source, data_prefix=dict(img_path='images/train', seg_map_path='masks/train'), pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    **evaluated,
    dataset=dict(**source, data_prefix=dict(img_path='images/val', seg_map_path='masks/val'), pipeline=test_pipeline),
)
test_dataloader = dict(
    **evaluated,
    dataset=dict(**source, data_prefix=dict(img_path='images/test', seg_map_path='masks/test'), pipeline=test_pipeline),
)
val_evaluator = dict(type='IoUMetric', _scope_='mmseg', iou_metrics=['mIoU'])
test_evaluator = dict(type='IoUMetric', _scope_='mmseg', iou_metrics=['mIoU'])
