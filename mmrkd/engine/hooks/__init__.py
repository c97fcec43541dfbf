"""Hooks that a distillation run needs; :func:`mmrkd.engine.prepare_config` adds them."""

from mmrkd.engine.hooks.checkpoint_hooks import MergeCheckpointHook, SplitCheckpointHook
from mmrkd.engine.hooks.class_check_hook import ClassCheckHook
from mmrkd.engine.hooks.compile_hook import CompileHook
from mmrkd.engine.hooks.diagnosis_hook import DiagnosisHook
from mmrkd.engine.hooks.distill_schedule_hook import DistillScheduleHook
from mmrkd.engine.hooks.expand_hook import ExpandHook
from mmrkd.engine.hooks.feature_maps_hook import FeatureMapsHook
from mmrkd.engine.hooks.phase_hook import PhaseHook
from mmrkd.engine.hooks.resumable_checkpoint_hook import ResumableCheckpointHook
from mmrkd.engine.hooks.teacher_sequence_hook import TeacherSequenceHook

__all__ = [
    'ClassCheckHook',
    'CompileHook',
    'DiagnosisHook',
    'DistillScheduleHook',
    'ExpandHook',
    'FeatureMapsHook',
    'MergeCheckpointHook',
    'PhaseHook',
    'ResumableCheckpointHook',
    'SplitCheckpointHook',
    'TeacherSequenceHook',
]
