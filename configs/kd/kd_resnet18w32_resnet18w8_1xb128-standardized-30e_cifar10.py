"""KD of standardised logits on CIFAR-10, with the weights that its release has on CIFAR-100."""

_base_ = '../_base_/pairs/resnet18w32_resnet18w8_cifar10.py'
model = dict(methods=[dict(type='mmrkd.KD', standardize_logits=True, tau=2.0, w_kd=9.0, w_task=0.1)])
