"""The best student on DeepPCB: moved images, its teacher's neck and head at first, soft targets, ERA that fades."""

_base_ = './era_retinanet-r18w32_retinanet-r18w8_1xb8-soft-48e_deeppcb.py'
train_dataloader = dict(dataset=dict(pipeline=_base_.shifted_pipeline))
model = dict(init_student='neck,head')
custom_hooks = [dict(type='mmrkd.DistillScheduleHook', method='era', decay=16, end=28)]
