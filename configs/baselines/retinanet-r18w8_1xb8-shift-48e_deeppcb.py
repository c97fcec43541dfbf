"""The student alone on DeepPCB, with images that are moved as its teacher's are."""

_base_ = './retinanet-r18w8_1xb8-48e_deeppcb.py'
*transforms, pack = _base_.train_pipeline
shift = dict(type='RandomShift', prob=1.0, max_shift_px=32)
train_dataloader = dict(dataset=dict(pipeline=[*transforms, shift, pack]))
