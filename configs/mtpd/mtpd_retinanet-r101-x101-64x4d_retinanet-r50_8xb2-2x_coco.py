"""MTPD on COCO, MGD in each stage: RetinaNet-R101, then RetinaNet-X101-64x4d teach RetinaNet-R50, in one run."""

_base_ = '../_base_/pairs/mtpd_retinanet-r50_coco.py'
zoo = 'https://download.openmmlab.com/mmdetection/v2.0/retinanet/'
model = dict(
    teachers=dict(
        r101=dict(
            cfg='mmdet::retinanet/retinanet_r101_fpn_2x_coco.py',
            ckpt=zoo + 'retinanet_r101_fpn_2x_coco/retinanet_r101_fpn_2x_coco_20200131-5560aee8.pth',
        ),
        x101=dict(
            cfg='mmdet::retinanet/retinanet_x101-64x4d_fpn_1x_coco.py',
            ckpt=zoo + 'retinanet_x101_64x4d_fpn_1x_coco/retinanet_x101_64x4d_fpn_1x_coco_20200130-366f5af1.pth',
        ),
    ),
    methods=[dict(type='mmrkd.MGD', w_mgd=2e-5, ratio=0.65, teacher=['r101', 'x101'])],
)
custom_hooks = [dict(type='mmrkd.TeacherSequenceHook', order=['r101', 'x101'], at=[12], restart_optimizer=True)]
