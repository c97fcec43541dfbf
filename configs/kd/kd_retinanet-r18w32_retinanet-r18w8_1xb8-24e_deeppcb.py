"""Plain KD on the dense logits, DeepPCB, the baseline beside SemiOnlineKD."""

_base_ = '../_base_/pairs/retinanet-r18w32_retinanet-r18w8_deeppcb.py'
model = dict(methods=[dict(type='mmrkd.KD', w_kd=0.2, tau=1.0)])
