"""OnlineEnsemble on Cityscapes: three branches of PSPNet-R18, which share all but the last stage, and no teacher."""

_base_ = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    methods=[dict(type='mmrkd.OnlineEnsemble', split='layer4', init='student', norm='GN')],  # 2 images a device
)
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'ensemble'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'ensemble'))
