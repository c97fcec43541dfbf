"""The student alone: WRN-40-1 on CIFAR-100."""

_base_ = [
    '../_base_/models/wrn_cifar100.py',
    '../_base_/datasets/cifar100.py',
    '../_base_/schedules/sgd_step_240e.py',
    '../_base_/cls_runtime.py',
]
