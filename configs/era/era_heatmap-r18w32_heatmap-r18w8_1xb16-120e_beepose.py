"""ERA on bees, the last map of the backbone: the teacher's whole head judges.

First train the teacher: configs/baselines/heatmap-r18w32_1xb16-120e_beepose.py.
"""

_base_ = '../_base_/pairs/heatmap-r18w32_heatmap-r18w8_beepose.py'
model = dict(methods=[dict(type='mmrkd.ERA')])
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'integrated'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'integrated'))
