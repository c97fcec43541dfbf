"""MGD on COCO: RetinaNet-X101-64x4d (multi-scale 3x) teaches RetinaNet-R50, which starts from its neck and head."""

_base_ = 'mmdet::retinanet/retinanet_r50_fpn_2x_coco.py'
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='mmdet::retinanet/retinanet_x101-64x4d_fpn_ms-640-800-3x_coco.py',
        ckpt='https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_x101_64x4d_fpn_mstrain_3x_coco/'
        'retinanet_x101_64x4d_fpn_mstrain_3x_coco_20210719_051838-022c2187.pth',
    ),
    methods=[dict(type='mmrkd.MGD', w_mgd=2e-5, ratio=0.65)],
    init_student='neck,bbox_head',
)
