"""SemiOnlineKD on CIFAR-10. First train the teacher: configs/baselines/resnet18w32_1xb128-30e_cifar10.py."""

_base_ = '../_base_/pairs/resnet18w32_resnet18w8_cifar10.py'
model = dict(methods=[dict(type='mmrkd.SemiOnlineKD')])
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'bridge'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'bridge'))
