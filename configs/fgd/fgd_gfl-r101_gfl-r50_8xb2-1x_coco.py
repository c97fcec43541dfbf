"""FGD on COCO: GFL-R101 (multi-scale 2x, 44.7 AP) teaches GFL-R50, which starts from its neck and head."""

_base_ = 'mmdet::gfl/gfl_r50_fpn_1x_coco.py'
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='mmdet::gfl/gfl_r101_fpn_ms-2x_coco.py',
        ckpt='https://download.openmmlab.com/mmdetection/v2.0/gfl/gfl_r101_fpn_mstrain_2x_coco/'
        'gfl_r101_fpn_mstrain_2x_coco_20200629_200126-dd12f847.pth',
    ),
    methods=[dict(type='mmrkd.FGD', w_fg=1e-3, w_bg=5e-4, w_attention=5e-4, w_relation=5e-6)],
    init_student='neck,bbox_head',
)
