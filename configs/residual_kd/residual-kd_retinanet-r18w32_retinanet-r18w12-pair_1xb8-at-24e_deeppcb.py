"""ResidualKD with attention transfer on DeepPCB, the combination of the paper's best row."""

_base_ = './residual-kd_retinanet-r18w32_retinanet-r18w12-pair_1xb8-24e_deeppcb.py'
model = dict(
    methods=[
        dict(type='mmrkd.ResidualKD'),
        dict(type='mmrkd.AttentionTransfer', w_at=50.0),
    ]
)
