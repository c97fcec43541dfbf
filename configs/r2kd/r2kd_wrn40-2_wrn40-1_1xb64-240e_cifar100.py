"""R2KD on CIFAR-100, with the release's weights and schedule: WRN-40-2 teaches WRN-40-1."""

_base_ = '../_base_/pairs/wrn40-2_wrn40-1_cifar100.py'
model = dict(
    methods=[dict(type='mmrkd.R2KD', w_value=2.0, tau=4.0, prune_rate=0.1, teacher_share=0.7, augment='cutmix')]
)
