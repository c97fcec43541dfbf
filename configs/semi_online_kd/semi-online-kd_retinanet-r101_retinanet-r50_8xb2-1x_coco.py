"""SemiOnlineKD on COCO: RetinaNet-R101 (2x, 38.9 AP) teaches RetinaNet-R50."""

_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='mmdet::retinanet/retinanet_r101_fpn_2x_coco.py',
        ckpt='https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_r101_fpn_2x_coco/'
        'retinanet_r101_fpn_2x_coco_20200131-5560aee8.pth',
    ),
    methods=[
        dict(type='mmrkd.SemiOnlineKD'),
    ],
)
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'bridge'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'bridge'))
