"""The student alone: WRN-40-1 on CIFAR-10."""

_base_ = [
    '../_base_/models/wrn_cifar.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/sgd_step_200e.py',
    '../_base_/cls_runtime.py',
]
