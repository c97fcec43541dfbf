"""ERA on COCO: ATSS-R101 (1x, 41.5 AP) teaches ATSS-R50."""

_base_ = 'mmdet::atss/atss_r50_fpn_1x_coco.py'
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='mmdet::atss/atss_r101_fpn_1x_coco.py',
        ckpt='https://download.openmmlab.com/mmdetection/v2.0/atss/atss_r101_fpn_1x_coco/'
        'atss_r101_fpn_1x_20200825-dfcadd6f.pth',
    ),
    methods=[dict(type='mmrkd.ERA')],
)
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'integrated'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'integrated'))
