"""SGD at 0.05 for a batch of 64, weight decay 5e-4, x0.1 after 150, 180 and 210 of 240 epochs."""

_base_ = './sgd_cosine_30e.py'
train_cfg = dict(max_epochs=240)
optim_wrapper = dict(optimizer=dict(lr=0.05))
param_scheduler = dict(_delete_=True, type='MultiStepLR', milestones=[150, 180, 210], gamma=0.1)
