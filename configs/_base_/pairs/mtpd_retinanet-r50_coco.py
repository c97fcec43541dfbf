"""RetinaNet-R50 on COCO in two stages of 12 epochs, each with a schedule of its own; teachers are still to be named."""

_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
runner_type = 'mmrkd.Runner'
model = dict(_delete_=True, type='mmrkd.Distiller', student=_base_.model, init_student='neck,bbox_head')
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
train_cfg = dict(max_epochs=24)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, milestones=[8, 11], gamma=0.1),
    # The second stage begins anew: each schedule multiplies what the others have left.
    dict(type='MultiStepLR', by_epoch=True, milestones=[12], gamma=100.0),
    dict(type='LinearLR', start_factor=0.001, begin=12, end=12.07, convert_to_iter_based=True),
    dict(type='MultiStepLR', by_epoch=True, milestones=[20, 23], gamma=0.1),
]
