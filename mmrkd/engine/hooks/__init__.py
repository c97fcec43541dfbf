"""Hooks that a distillation run needs; :func:`mmrkd.engine.prepare_config` adds them."""

from mmrkd.engine.hooks.checkpoint_hooks import MergeCheckpointHook, SplitCheckpointHook
from mmrkd.engine.hooks.class_check_hook import ClassCheckHook
from mmrkd.engine.hooks.phase_hook import PhaseHook

__all__ = ['ClassCheckHook', 'MergeCheckpointHook', 'PhaseHook', 'SplitCheckpointHook']
