"""SSKD on CIFAR-100 as released: 60 epochs for the teacher's head, 240 for the student, four crops."""

_base_ = ['../_base_/pairs/wrn40-2_wrn40-1_cifar100.py', '../_base_/views/cifar_four_views.py']
head_epochs = 60
model = dict(
    view_names=('plain', 'turned_90', 'turned_180', 'turned_270'),
    methods=[dict(type='mmrkd.SSKD', schedule='first', head_epochs=head_epochs, rotate='pipeline')],
)
train_cfg = dict(max_epochs=head_epochs + 240)
param_scheduler = [
    dict(type='MultiStepLR', milestones=[30, 45], gamma=0.1),  # of the head
    dict(type='MultiStepLR', milestones=[head_epochs], gamma=100),  # the student begins where the head began
    dict(type='MultiStepLR', milestones=[head_epochs + epoch for epoch in (150, 180, 210)], gamma=0.1),
]
train_dataloader = dict(dataset=dict(pipeline=_base_.four_views))
