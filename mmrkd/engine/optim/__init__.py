"""Optimiser wrappers."""

from mmrkd.engine.optim.autocast_optim_wrapper import AutocastOptimWrapper
from mmrkd.engine.optim.native_precision import computes_bfloat16

__all__ = ['AutocastOptimWrapper', 'computes_bfloat16']
