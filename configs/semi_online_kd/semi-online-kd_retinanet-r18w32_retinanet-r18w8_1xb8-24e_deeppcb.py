"""SemiOnlineKD on DeepPCB. First train the teacher: configs/baselines/retinanet-r18w32_1xb8-36e_deeppcb.py."""

_base_ = '../_base_/pairs/retinanet-r18w32_retinanet-r18w8_deeppcb.py'
model = dict(methods=[dict(type='mmrkd.SemiOnlineKD')])
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'bridge'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'bridge'))
