"""CRLD on CIFAR-100 with the release's weights and schedule: WRN-40-2 teaches WRN-40-1."""

_base_ = ['../_base_/pairs/wrn40-2_wrn40-1_cifar100.py', '../_base_/views/cifar_two_views.py']
model = dict(methods=[dict(type='mmrkd.CRLD', w_ce=1.0, w_within=2.0, w_cross=0.5, tau=4.0)])
train_dataloader = dict(dataset=dict(pipeline=_base_.two_views))
