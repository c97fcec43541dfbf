"""ERA on ImageNet with the authors' recipe: ResNet-34 (73.62 top-1) teaches ResNet-18."""

_base_ = '../_base_/pairs/resnet34_resnet18_imagenet.py'
model = dict(
    methods=[dict(type='mmrkd.ERA', w_kd=2.0, tau=1.0, w_feat=5.0, w_res=1.0, w_twi=1.0, twi_kd=False)],
)
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'integrated'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'integrated'))
