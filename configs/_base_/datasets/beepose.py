"""apic.ai's bees: 204 photographs of one bee each with 32 keypoints, cut out and warped to 128x128.

The folder is `beepose/` below `$MMRKD_DATA` (default: `data`). Training tunes on `val`; `tools/test.py` reports `test`.
The sigmas, by which a distance counts in the AP, are ours: 0.05 for every point.
"""

data_root = '{{$MMRKD_DATA:data}}/beepose/'
input_size = (128, 128)
codec = dict(type='MSRAHeatmap', input_size=input_size, heatmap_size=(32, 32), sigma=1.5)
legs = [
    f'{side}_leg_{leg}_{part}' for side in ('right', 'left') for leg in ('front', 'middle', 'back') for part in '1234'
]
names = [
    'head_front',
    'head_left',
    'head_right',
    'head_back',
    'body_center',
    'body_back',
    'wing_left',
    'wing_right',
    *legs,
]
mirrored = [name.replace('left', '*').replace('right', 'left').replace('*', 'right') for name in names]
points = {
    index: dict(name=name, id=index, color=[240, 200, 60], type='', swap='' if other == name else other)
    for index, (name, other) in enumerate(zip(names, mirrored))
}
source = dict(
    type='BaseCocoStyleDataset',
    _scope_='mmpose',
    data_root=data_root,
    metainfo=dict(
        dataset_name='beepose', keypoint_info=points, skeleton_info={}, joint_weights=[1.0] * 32, sigmas=[0.05] * 32
    ),
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
