"""WRN-40-1 for 32 x 32 images of 100 classes."""

_base_ = './wrn_cifar.py'
model = dict(head=dict(num_classes=100))
