"""ERA with soft targets (logits and boxes) on DeepPCB, until the student has converged.

First train the teacher: configs/baselines/retinanet-r18w32_1xb8-36e_deeppcb.py, then the one with `shift`.
"""

_base_ = '../_base_/pairs/retinanet-r18w32_retinanet-r18w8_deeppcb-48e.py'
model = dict(methods=[dict(type='mmrkd.ERA')])
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'integrated'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'integrated'))
