"""ResidualKD on COCO: Faster R-CNN-R50 (2x, 38.4 AP) teaches a Faster R-CNN-R18 whose backbone was separated.

First train the pair on ImageNet: residual-kd_resnet34_resnet18-pair_8xb32-100e_imagenet.py.
"""

_base_ = [
    '../_base_/models/faster-rcnn_r18_fpn.py',
    '../_base_/models/resnet18_pair_backbone.py',
    '../_base_/datasets/coco.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]
pair = _base_.pair_backbone
for part in (pair.student, pair.assistant):
    part.out_indices = (0, 1, 2, 3)
_base_.model.backbone = pair
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
    methods=[dict(type='mmrkd.ResidualKD')],
)
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'student_alone'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('integrated', 'student_alone'))
