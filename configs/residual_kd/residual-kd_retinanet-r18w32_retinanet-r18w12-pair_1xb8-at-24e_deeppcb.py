"""ResidualKD with attention transfer on DeepPCB, the combination of the paper's best row."""

_base_ = './residual-kd_retinanet-r18w32_retinanet-r18w12-pair_1xb8-24e_deeppcb.py'
model = dict(
    methods=[
        dict(type='mmrkd.ResidualKD', w_student=1.0, w_assistant=1.0, stages='all'),
        dict(type='mmrkd.AttentionTransfer', w_at=50.0),
    ]
)
