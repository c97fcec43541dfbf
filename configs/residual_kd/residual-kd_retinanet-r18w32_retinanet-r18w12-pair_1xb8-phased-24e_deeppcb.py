"""ResidualKD on DeepPCB in three phases: the student, the assistant, then neck and head with both parts frozen."""

_base_ = './residual-kd_retinanet-r18w32_retinanet-r18w12-pair_1xb8-24e_deeppcb.py'
phase_epochs = (10, 16)
max_epochs = 24
model = dict(methods=[dict(type='mmrkd.ResidualKD', scheme='progressive', phase_epochs=phase_epochs)])
param_scheduler = [  # a cosine for each phase: what learns last needs a learning rate too
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    *[
        dict(
            type='CosineAnnealingLR', eta_min=1e-5, begin=begin, end=end, T_max=end - begin, convert_to_iter_based=True
        )
        for begin, end in ((0, phase_epochs[0]), phase_epochs, (phase_epochs[1], max_epochs))
    ],
]
