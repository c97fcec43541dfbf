"""ERA on CIFAR-10 with soft targets: a teacher that knows its images by heart says more by its logits at T = 4."""

_base_ = './era_resnet18w32_resnet18w8_1xb128-30e_cifar10.py'
model = dict(methods=[dict(type='mmrkd.ERA', w_kd=1.0, tau=4.0, w_twi=0.1, twi_kd=True)])
