"""Deep mutual learning on CIFAR-10: the peer has the architecture of the teacher, whose weights play no part."""

_base_ = '../_base_/pairs/resnet18w32_resnet18w8_cifar10.py'
model = dict(methods=[dict(type='mmrkd.DeepMutualLearning')])
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'peer'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'peer'))
