"""Deep mutual learning on DeepPCB: the peer has the architecture of the teacher, whose weights play no part."""

_base_ = '../_base_/pairs/retinanet-r18w32_retinanet-r18w8_deeppcb.py'
model = dict(methods=[dict(type='mmrkd.DeepMutualLearning', w_kd=0.2)])
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'peer'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'peer'))
