"""The best student on DeepPCB: moved images, its teacher's neck and head at first, soft targets, ERA that fades."""

_base_ = './era_retinanet-r18w32_retinanet-r18w8_1xb8-48e_deeppcb.py'
train_dataloader = dict(dataset=dict(pipeline=_base_.shifted_pipeline))
model = dict(
    init_student='neck,head',
    methods=[dict(type='mmrkd.ERA', w_kd=0.0), dict(type='mmrkd.KD', w_kd=0.2, tau=1.0, w_box=20.0)],  # KD stays on
)
custom_hooks = [dict(type='mmrkd.DistillScheduleHook', method='era', decay=16, end=28)]
