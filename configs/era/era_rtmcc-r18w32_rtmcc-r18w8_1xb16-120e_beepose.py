"""ERA on bees, the last map of the backbone: the teacher's head of coordinates judges.

First train the teacher: configs/baselines/rtmcc-r18w32_1xb16-120e_beepose.py.
"""

_base_ = '../_base_/pairs/rtmcc-r18w32_rtmcc-r18w8_beepose.py'
model = dict(methods=[dict(type='mmrkd.ERA')])
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'integrated'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'integrated'))
