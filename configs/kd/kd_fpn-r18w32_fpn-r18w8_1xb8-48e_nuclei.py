"""KD on nuclei: the logits of every cell of the head.

First train the teacher: configs/baselines/fpn-r18w32_1xb8-48e_nuclei.py.
"""

_base_ = '../_base_/pairs/fpn-r18w32_fpn-r18w8_nuclei.py'
model = dict(methods=[dict(type='mmrkd.KD', w_kd=1.0, tau=1.0)])
