"""The student alone on DeepPCB, with images that are moved as its teacher's are."""

_base_ = './retinanet-r18w8_1xb8-48e_deeppcb.py'
train_dataloader = dict(dataset=dict(pipeline=_base_.shifted_pipeline))
