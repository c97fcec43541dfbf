"""What small sets in COCO format share: batches of 8, `annotations/{train,val,test}.json`; a set adds where and how."""

loader = dict(batch_size=8, num_workers=1, persistent_workers=True)
evaluated = dict(**loader, drop_last=False, sampler=dict(type='DefaultSampler', shuffle=False))
source = dict(type='CocoDataset', _scope_='mmdet', data_prefix=dict(img='images/'))

train_dataloader = dict(
    **loader,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(**source, ann_file='annotations/train.json', filter_cfg=dict(filter_empty_gt=True)),
)
val_dataloader = dict(**evaluated, dataset=dict(**source, ann_file='annotations/val.json', test_mode=True))
test_dataloader = dict(**evaluated, dataset=dict(**source, ann_file='annotations/test.json', test_mode=True))
val_evaluator = dict(type='CocoMetric', _scope_='mmdet', metric='bbox')
test_evaluator = dict(type='CocoMetric', _scope_='mmdet', metric='bbox')
