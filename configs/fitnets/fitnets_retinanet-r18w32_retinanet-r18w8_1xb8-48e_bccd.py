"""The plain feature hint on BCCD, the baseline beside ERA."""

_base_ = '../_base_/pairs/retinanet-r18w32_retinanet-r18w8_bccd.py'
model = dict(methods=[dict(type='mmrkd.FitNets', w_feat=1.0)])
