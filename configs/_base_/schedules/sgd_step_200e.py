"""SGD with momentum at 0.1 for a batch of 128, weight decay 5e-4, x0.1 after 100 and 150 of 200 epochs."""

_base_ = './sgd_cosine_30e.py'
train_cfg = dict(max_epochs=200)
param_scheduler = dict(_delete_=True, type='MultiStepLR', milestones=[100, 150], gamma=0.1)
