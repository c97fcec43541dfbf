"""CRLD on CIFAR-10, with the weights that the release has on CIFAR-100."""

_base_ = ['../_base_/pairs/resnet18w32_resnet18w8_cifar10.py', '../_base_/views/cifar_two_views.py']
model = dict(methods=[dict(type='mmrkd.CRLD', w_ce=1.0, w_within=2.0, w_cross=0.5, tau=4.0)])
train_dataloader = dict(dataset=dict(pipeline=_base_.two_views))
