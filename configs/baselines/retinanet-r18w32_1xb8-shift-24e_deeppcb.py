"""A better teacher on DeepPCB: trained on, from the last of its 36 epochs, with images that are moved."""

_base_ = './retinanet-r18w32_1xb8-36e_deeppcb.py'
max_epochs = 24
load_from = '{{$MMRKD_WORK_DIRS:work_dirs}}/retinanet-r18w32_1xb8-36e_deeppcb/epoch_36.pth'
train_dataloader = dict(dataset=dict(pipeline=_base_.shifted_pipeline))
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=0, end=max_epochs, T_max=max_epochs, convert_to_iter_based=True),
]
