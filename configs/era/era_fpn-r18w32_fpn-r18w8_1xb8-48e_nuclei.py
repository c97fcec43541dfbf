"""ERA on nuclei, levels of the FPN: the teacher's whole head judges.

First train the teacher: configs/baselines/fpn-r18w32_1xb8-48e_nuclei.py.
"""

_base_ = '../_base_/pairs/fpn-r18w32_fpn-r18w8_nuclei.py'
model = dict(methods=[dict(type='mmrkd.ERA')])
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'integrated'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'integrated'))
