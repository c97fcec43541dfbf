"""KD on bees: the heatmaps of the joints that are visible, half of the weight.

First train the teacher: configs/baselines/heatmap-r18w32_1xb16-120e_beepose.py.
"""

_base_ = '../_base_/pairs/heatmap-r18w32_heatmap-r18w8_beepose.py'
model = dict(methods=[dict(type='mmrkd.KD', w_task=0.5, w_kd=1.0)])
