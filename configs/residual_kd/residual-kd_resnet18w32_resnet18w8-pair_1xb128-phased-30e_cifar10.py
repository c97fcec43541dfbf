"""ResidualKD on CIFAR-10 in three phases: the student, the assistant, then the head with both parts frozen."""

_base_ = './residual-kd_resnet18w32_resnet18w8-pair_1xb128-30e_cifar10.py'
phase_epochs = (15, 25)
max_epochs = 30
model = dict(methods=[dict(type='mmrkd.ResidualKD', scheme='progressive', phase_epochs=phase_epochs, standardize=True)])
param_scheduler = [  # a cosine for each phase: what learns last needs a learning rate too
    dict(type='CosineAnnealingLR', eta_min=0, begin=begin, end=end, T_max=end - begin, convert_to_iter_based=True)
    for begin, end in ((0, phase_epochs[0]), phase_epochs, (phase_epochs[1], max_epochs))
]
