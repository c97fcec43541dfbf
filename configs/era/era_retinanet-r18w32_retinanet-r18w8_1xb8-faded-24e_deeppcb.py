"""ERA that fades out, on DeepPCB: the student starts from its teacher's neck and head, and trains alone at the end."""

_base_ = './era_retinanet-r18w32_retinanet-r18w8_1xb8-24e_deeppcb.py'
model = dict(init_student='neck,head')
custom_hooks = [dict(type='mmrkd.DistillScheduleHook', decay=10, end=18)]
