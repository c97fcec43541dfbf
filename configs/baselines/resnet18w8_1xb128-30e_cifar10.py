"""The student alone: ResNet-18 with an eighth of the channels on CIFAR-10."""

_base_ = [
    '../_base_/models/resnet18_cifar_small.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/sgd_cosine_30e.py',
    '../_base_/cls_runtime.py',
]
