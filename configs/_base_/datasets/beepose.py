"""apic.ai's bees: 204 photographs of one bee each with 32 keypoints, cut out and warped to 128x128.

The folder is `beepose/` below `$MMRKD_DATA` (default: `data`). Training tunes on `val`; `tools/test.py` reports `test`.
Names, mirror images and sigmas of the keypoints are in `beepose_points.py`.
"""

data_root = '{{$MMRKD_DATA:data}}/beepose/'
input_size = (128, 128)
codec = dict(type='MSRAHeatmap', input_size=input_size, heatmap_size=(32, 32), sigma=1.5)
source = dict(
    type='BaseCocoStyleDataset',
    _scope_='mmpose',
    data_root=data_root,
    metainfo=dict(from_file='{{fileDirname}}/beepose_points.py'),
)
crop = [dict(type='LoadImage'), dict(type='GetBBoxCenterScale')]
warp = dict(type='TopdownAffine', input_size=input_size)
train_pipeline = [
    *crop,
    dict(type='RandomFlip', direction='horizontal'),
    dict(type='RandomBBoxTransform', scale_factor=(0.75, 1.25)),
    warp,
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs'),
]
test_pipeline = [*crop, warp, dict(type='PackPoseInputs')]

loader = dict(num_workers=1, persistent_workers=True)
evaluated = dict(**loader, batch_size=32, drop_last=False, sampler=dict(type='DefaultSampler', shuffle=False))
train_dataloader = dict(
    **loader,
    batch_size=16,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(**source, ann_file='train.json', data_prefix=dict(img='images/train/'), pipeline=train_pipeline),
)
val_dataloader = dict(
    **evaluated,
    dataset=dict(
        **source, ann_file='val.json', data_prefix=dict(img='images/val/'), test_mode=True, pipeline=test_pipeline
    ),
)
test_dataloader = dict(
    **evaluated,
    dataset=dict(
        **source, ann_file='test.json', data_prefix=dict(img='images/test/'), test_mode=True, pipeline=test_pipeline
    ),
)
val_evaluator = dict(type='CocoMetric', _scope_='mmpose', ann_file=f'{data_root}val.json')
test_evaluator = dict(type='CocoMetric', _scope_='mmpose', ann_file=f'{data_root}test.json')
