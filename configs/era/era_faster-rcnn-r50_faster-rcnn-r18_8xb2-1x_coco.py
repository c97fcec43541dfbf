"""ERA on COCO: Faster R-CNN-R50 (2x, 38.4 AP) teaches Faster R-CNN-R18."""

_base_ = [
    '../_base_/models/faster-rcnn_r18_fpn.py',
    '../_base_/datasets/coco.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='mmdet::faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py',
        ckpt='https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r50_fpn_2x_coco/'
        'faster_rcnn_r50_fpn_2x_coco_bbox_mAP-0.384_20200504_210434-a5d8aa15.pth',
    ),
    methods=[dict(type='mmrkd.ERA')],
)
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'integrated'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'integrated'))
