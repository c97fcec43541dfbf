"""SemiOnlineKD with the paper's recipe and pair, on CIFAR-10: WRN-40-2 teaches WRN-40-1.

First train the teacher: configs/baselines/wrn40-2_1xb128-200e_cifar10.py. The bridge may learn at a rate of its own; 1
is the paper's. Settings for all norms or biases (norm_decay_mult) do not reach what a custom key names.
"""

_base_ = '../baselines/wrn40-1_1xb128-200e_cifar10.py'
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='{{fileDirname}}/../baselines/wrn40-2_1xb128-200e_cifar10.py',
        ckpt='{{$MMRKD_WORK_DIRS:work_dirs}}/wrn40-2_1xb128-200e_cifar10/epoch_200.pth',
    ),
    methods=[dict(type='mmrkd.SemiOnlineKD', split='layer3', tau=4.0)],
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'methods.semionlinekd.bridge': dict(lr_mult=1.0)}))
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'bridge'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'bridge'))
