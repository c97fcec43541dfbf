"""ERA on bees, what the head's last convolution reads: that convolution judges.

First train the teacher: configs/baselines/heatmap-r18w32_1xb16-120e_beepose.py.
"""

_base_ = '../_base_/pairs/heatmap-r18w32_heatmap-r18w8_beepose.py'
model = dict(at='penultimate', methods=[dict(type='mmrkd.ERA')])
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'integrated'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'integrated'))
