"""ResidualKD on DeepPCB in three phases: the student, the assistant, then neck and head with both parts frozen."""

_base_ = './residual-kd_retinanet-r18w32_retinanet-r18w12-pair_1xb8-24e_deeppcb.py'
phase_epochs = (10, 16)
model = dict(methods=[dict(type='mmrkd.ResidualKD', scheme='progressive', phase_epochs=phase_epochs)])
param_scheduler = [
    dict(  # begins anew with each phase: what learns last needs a learning rate too
        type='CosineRestartLR',
        periods=[10, 6, 8],
        restart_weights=[1, 1, 1],
        eta_min=1e-5,
        convert_to_iter_based=True,
    ),
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),  # scales what stands above it
]
