"""DWPose on bees, stage 1: the last map of the backbone, and the distributions over the bins.

First train the teacher: configs/baselines/rtmcc-r18w32_1xb16-120e_beepose.py.
"""

_base_ = '../_base_/pairs/rtmcc-r18w32_rtmcc-r18w8_beepose.py'
model = dict(methods=[dict(type='mmrkd.DWPose')])
