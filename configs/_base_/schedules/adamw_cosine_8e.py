"""AdamW, a short warm-up, cosine decay over 8 epochs; bfloat16 where the processor or GPU computes it."""

_base_ = './adamw_cosine_24e.py'
max_epochs = 8
train_cfg = dict(max_epochs=max_epochs, val_interval=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=0, end=max_epochs, T_max=max_epochs, convert_to_iter_based=True),
]
