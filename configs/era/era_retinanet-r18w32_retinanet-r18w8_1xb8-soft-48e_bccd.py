"""ERA with soft targets (logits and boxes) on BCCD.

First train the teacher: configs/baselines/retinanet-r18w32_1xb8-affine-96e_bccd.py.
"""

_base_ = '../_base_/pairs/retinanet-r18w32_retinanet-r18w8_bccd.py'
model = dict(
    methods=[
        dict(type='mmrkd.ERA', num_branches=2, branch_weights=[1, 1], w_twi=2.0, twi_on='last'),
        dict(type='mmrkd.KD', w_kd=0.2, tau=1.0, w_box=20.0),
    ]
)
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'integrated'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'integrated'))
