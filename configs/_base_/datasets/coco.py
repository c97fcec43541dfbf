"""COCO 2017 as mmdet reads it, from the folder `coco/` below `$MMRKD_DATA` (default: `data`)."""

_base_ = 'mmdet::_base_/datasets/coco_detection.py'
data_root = '{{$MMRKD_DATA:data}}/coco/'
val_annotations = data_root + 'annotations/instances_val2017.json'

train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
val_evaluator = dict(ann_file=val_annotations)
test_evaluator = dict(ann_file=val_annotations)
