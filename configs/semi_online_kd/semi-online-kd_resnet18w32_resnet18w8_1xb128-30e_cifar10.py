"""SemiOnlineKD on CIFAR-10. First train the teacher: configs/baselines/resnet18w32_1xb128-30e_cifar10.py.

The bridge is half of the teacher and starts from its weights; the paper's, the last stage with fresh weights, is
`methods=[dict(type='mmrkd.SemiOnlineKD')]`.
"""

_base_ = '../_base_/pairs/resnet18w32_resnet18w8_cifar10.py'
model = dict(methods=[dict(type='mmrkd.SemiOnlineKD', split='layer3', init='teacher')])
# The bridge starts trained.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'methods.semionlinekd.bridge': dict(lr_mult=0.1)}))
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'bridge'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'bridge'))
