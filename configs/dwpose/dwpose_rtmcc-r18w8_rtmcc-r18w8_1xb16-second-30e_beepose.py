"""DWPose on bees, stage 2: a new head learns from the student of stage 1, whose body it keeps.

First train stage 1: configs/dwpose/dwpose_rtmcc-r18w32_rtmcc-r18w8_1xb16-120e_beepose.py.
"""

_base_ = '../_base_/pairs/rtmcc-r18w32_rtmcc-r18w8_beepose.py'
max_epochs = 30
model = dict(
    teacher=dict(
        cfg='{{fileDirname}}/../baselines/rtmcc-r18w8_1xb16-120e_beepose.py',
        ckpt='{{$MMRKD_WORK_DIRS:work_dirs}}/dwpose_rtmcc-r18w32_rtmcc-r18w8_1xb16-120e_beepose/epoch_120.pth',
    ),
    methods=[dict(type='mmrkd.DWPose', stage=2)],
)
train_cfg = dict(max_epochs=max_epochs, val_interval=10)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=0, end=max_epochs, T_max=max_epochs, convert_to_iter_based=True),
]
