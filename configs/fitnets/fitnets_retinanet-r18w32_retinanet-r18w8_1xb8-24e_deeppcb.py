"""The plain feature hint on DeepPCB, the baseline beside ERA: MSE to the teacher, no MBRNet, no TWI."""

_base_ = '../_base_/pairs/retinanet-r18w32_retinanet-r18w8_deeppcb.py'
model = dict(methods=[dict(type='mmrkd.FitNets', w_feat=1.0)])
