"""What runs around the model: hooks, loops, optimiser wrappers, preparation of a config."""

from mmrkd.engine.hooks import (
    ClassCheckHook,
    CompileHook,
    DiagnosisHook,
    DistillScheduleHook,
    ExpandHook,
    FeatureMapsHook,
    MergeCheckpointHook,
    PhaseHook,
    ResumableCheckpointHook,
    SplitCheckpointHook,
    TeacherSequenceHook,
)
from mmrkd.engine.loops import ResumableEpochLoop, ResumableIterLoop, VariantTestLoop, VariantValLoop
from mmrkd.engine.optim import AutocastOptimWrapper
from mmrkd.engine.prepare import prepare_config

__all__ = [
    'AutocastOptimWrapper',
    'ClassCheckHook',
    'CompileHook',
    'DiagnosisHook',
    'DistillScheduleHook',
    'ExpandHook',
    'FeatureMapsHook',
    'MergeCheckpointHook',
    'PhaseHook',
    'ResumableCheckpointHook',
    'ResumableEpochLoop',
    'ResumableIterLoop',
    'SplitCheckpointHook',
    'TeacherSequenceHook',
    'VariantTestLoop',
    'VariantValLoop',
    'prepare_config',
]
