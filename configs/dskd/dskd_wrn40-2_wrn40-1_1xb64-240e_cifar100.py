"""DSKD on CIFAR-100: WRN-40-2 teaches WRN-40-1 and supervises its first two stages, too."""

_base_ = '../_base_/pairs/wrn40-2_wrn40-1_cifar100.py'
model = dict(methods=[dict(type='mmrkd.DSKD', alpha=1.0, beta=1.0, tau=4.0, alloc='softmax')])
