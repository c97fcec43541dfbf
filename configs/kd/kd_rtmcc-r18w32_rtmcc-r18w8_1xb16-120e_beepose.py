"""KD on bees: the distributions over the bins of both axes.

First train the teacher: configs/baselines/rtmcc-r18w32_1xb16-120e_beepose.py.
"""

_base_ = '../_base_/pairs/rtmcc-r18w32_rtmcc-r18w8_beepose.py'
model = dict(methods=[dict(type='mmrkd.KD', w_kd=1.0, tau=1.0)])
