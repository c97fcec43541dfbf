"""KD on dense logits and boxes, BCCD: the soft targets beside ERA, alone."""

_base_ = '../_base_/pairs/retinanet-r18w32_retinanet-r18w8_bccd.py'
model = dict(methods=[dict(type='mmrkd.KD', w_kd=0.2, tau=1.0, w_box=20.0)])
