"""CRLD on ImageNet with the release's weights: ResNet-34 (73.62 top-1) teaches ResNet-18, 512 images at 0.2."""

_base_ = ['../_base_/pairs/resnet34_resnet18_imagenet.py', '../_base_/views/imagenet_two_views.py']
model = dict(methods=[dict(type='mmrkd.CRLD', w_ce=2.0, w_within=2.0, w_cross=0.5, tau=1.0)])
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=_base_.two_views))
optim_wrapper = dict(optimizer=dict(lr=0.2))
