"""ERA with soft targets (logits and boxes) on BCCD.

First train the teacher: configs/baselines/retinanet-r18w32_1xb8-affine-96e_bccd.py.
"""

_base_ = '../_base_/pairs/retinanet-r18w32_retinanet-r18w8_bccd.py'
model = dict(methods=[dict(type='mmrkd.ERA')])
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'integrated'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'integrated'))
