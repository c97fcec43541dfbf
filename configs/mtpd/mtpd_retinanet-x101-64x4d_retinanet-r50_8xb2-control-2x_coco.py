"""The control of MTPD: the last teacher alone for as many epochs, with the same schedule that begins anew."""

_base_ = '../_base_/pairs/mtpd_retinanet-r50_coco.py'
model = dict(
    teacher=dict(
        cfg='mmdet::retinanet/retinanet_x101-64x4d_fpn_1x_coco.py',
        ckpt='https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_x101_64x4d_fpn_1x_coco/'
        'retinanet_x101_64x4d_fpn_1x_coco_20200130-366f5af1.pth',
    ),
    methods=[dict(type='mmrkd.MGD', w_mgd=2e-5, ratio=0.65)],
)
