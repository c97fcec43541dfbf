"""What runs around the model: hooks, loops, optimiser wrappers, preparation of a config."""

from mmrkd.engine.hooks import ClassCheckHook, MergeCheckpointHook, PhaseHook, SplitCheckpointHook
from mmrkd.engine.loops import VariantTestLoop, VariantValLoop
from mmrkd.engine.optim import AutocastOptimWrapper
from mmrkd.engine.prepare import prepare_config

__all__ = [
    'AutocastOptimWrapper',
    'ClassCheckHook',
    'MergeCheckpointHook',
    'PhaseHook',
    'SplitCheckpointHook',
    'VariantTestLoop',
    'VariantValLoop',
    'prepare_config',
]
