"""The plain feature hint on DeepPCB, until the student has converged."""

_base_ = '../_base_/pairs/retinanet-r18w32_retinanet-r18w8_deeppcb-48e.py'
model = dict(methods=[dict(type='mmrkd.FitNets', w_feat=1.0)])
