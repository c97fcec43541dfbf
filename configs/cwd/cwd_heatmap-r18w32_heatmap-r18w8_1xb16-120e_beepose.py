"""CWD on bees: what the head's last convolution reads.

First train the teacher: configs/baselines/heatmap-r18w32_1xb16-120e_beepose.py.
"""

_base_ = '../_base_/pairs/heatmap-r18w32_heatmap-r18w8_beepose.py'
model = dict(at='penultimate', methods=[dict(type='mmrkd.CWD', w_cwd=0.01, tau=1.0)])
