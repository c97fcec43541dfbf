"""R2KD on CIFAR-10, with the weights that the release has on Tiny-ImageNet."""

_base_ = '../_base_/pairs/resnet18w32_resnet18w8_cifar10.py'
model = dict(
    methods=[dict(type='mmrkd.R2KD', w_value=2.0, tau=4.0, prune_rate=0.1, teacher_share=0.7, augment='cutmix')]
)
