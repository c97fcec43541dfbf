"""GDKD on CIFAR-10, with the weights that the release has for most pairs on CIFAR-100."""

_base_ = '../_base_/pairs/resnet18w32_resnet18w8_cifar10.py'
model = dict(methods=[dict(type='mmrkd.GDKD', k=5, weights=(1.0, 1.0, 8.0), tau=4.0)])
custom_hooks = [dict(type='mmrkd.DistillScheduleHook', warmup=2.5)]  # a twelfth of the training, as there
