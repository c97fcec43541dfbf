"""SGD with momentum at 0.1 for a batch of 128, cosine decay over 30 epochs; bfloat16 where the machine computes it."""

max_epochs = 30
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=5)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='mmrkd.AutocastOptimWrapper', optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4)
)
param_scheduler = dict(
    type='CosineAnnealingLR', eta_min=0, begin=0, end=max_epochs, T_max=max_epochs, convert_to_iter_based=True
)
