"""ERA on nuclei, what the head's last convolution reads: that convolution judges.

First train the teacher: configs/baselines/fpn-r18w32_1xb8-48e_nuclei.py.
"""

_base_ = '../_base_/pairs/fpn-r18w32_fpn-r18w8_nuclei.py'
model = dict(at='penultimate', methods=[dict(type='mmrkd.ERA')])
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'integrated'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'integrated'))
