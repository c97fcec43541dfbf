"""R2KD on ImageNet, with the weights that the release has on Tiny-ImageNet: ResNet-34 (73.62 top-1), ResNet-18."""

_base_ = '../_base_/pairs/resnet34_resnet18_imagenet.py'
model = dict(
    methods=[dict(type='mmrkd.R2KD', w_value=2.0, tau=4.0, prune_rate=0.1, teacher_share=0.7, augment='cutmix')]
)
