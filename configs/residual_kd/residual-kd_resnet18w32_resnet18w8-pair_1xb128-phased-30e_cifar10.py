"""ResidualKD on CIFAR-10 in three phases: the student, the assistant, then the head with both parts frozen."""

_base_ = './residual-kd_resnet18w32_resnet18w8-pair_1xb128-30e_cifar10.py'
phase_epochs = (15, 25)
model = dict(methods=[dict(type='mmrkd.ResidualKD', scheme='progressive', phase_epochs=phase_epochs)])
param_scheduler = dict(  # begins anew with each phase: what learns last needs a learning rate too
    _delete_=True,
    type='CosineRestartLR',
    periods=[15, 10, 5],
    restart_weights=[1, 1, 1],
    eta_min=0,
    convert_to_iter_based=True,
)
