"""GDKD on CIFAR-100 with the release's weights and schedule: WRN-40-2 teaches WRN-40-1."""

_base_ = '../_base_/pairs/wrn40-2_wrn40-1_cifar100.py'
model = dict(methods=[dict(type='mmrkd.GDKD', k=5, weights=(1.0, 2.0, 6.0), tau=4.0)])
custom_hooks = [dict(type='mmrkd.DistillScheduleHook', warmup=20)]
