"""FitNets on bees: the last map of the backbone.

First train the teacher: configs/baselines/heatmap-r18w32_1xb16-120e_beepose.py.
"""

_base_ = '../_base_/pairs/heatmap-r18w32_heatmap-r18w8_beepose.py'
model = dict(methods=[dict(type='mmrkd.FitNets', w_feat=0.005)])
