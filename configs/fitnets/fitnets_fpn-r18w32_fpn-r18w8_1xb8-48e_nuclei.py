"""FitNets on nuclei: the levels of the FPN.

First train the teacher: configs/baselines/fpn-r18w32_1xb8-48e_nuclei.py.
"""

_base_ = '../_base_/pairs/fpn-r18w32_fpn-r18w8_nuclei.py'
model = dict(methods=[dict(type='mmrkd.FitNets')])
