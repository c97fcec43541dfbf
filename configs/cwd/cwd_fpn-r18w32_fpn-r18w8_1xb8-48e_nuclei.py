"""CWD on nuclei: the logits, and what the head's last convolution reads.

First train the teacher: configs/baselines/fpn-r18w32_1xb8-48e_nuclei.py.
"""

_base_ = '../_base_/pairs/fpn-r18w32_fpn-r18w8_nuclei.py'
model = dict(
    at='penultimate',
    methods=[
        dict(type='mmrkd.CWD', name='cwd_logits', on='logits', w_cwd=3.0, tau=4.0),
        dict(type='mmrkd.CWD', name='cwd_feats', w_cwd=50.0, tau=4.0),
    ],
)
