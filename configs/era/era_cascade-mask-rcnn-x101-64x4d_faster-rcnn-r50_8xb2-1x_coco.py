"""ERA on COCO: Cascade Mask R-CNN-X101-64x4d (20 epochs, 45.6 box AP) teaches Faster R-CNN-R50.

The student trains on boxes, so TWI uses the box branches of the teacher alone: the batch has no masks to judge.
"""

_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='mmdet::cascade_rcnn/cascade-mask-rcnn_x101-64x4d_fpn_20e_coco.py',
        ckpt='https://download.openmmlab.com/mmdetection/v2.0/cascade_rcnn/cascade_mask_rcnn_x101_64x4d_fpn_20e_coco/'
        'cascade_mask_rcnn_x101_64x4d_fpn_20e_coco_20200512_161033-bdb5126a.pth',
    ),
    methods=[dict(type='mmrkd.ERA')],
)
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'integrated'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'integrated'))
