"""Checkpoints that plain mmdet and mmpretrain load, and that a distillation resumes from."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmrkd.checkpoint import METHOD_STATE
from mmrkd.models.state_names import METHODS_PREFIX, STUDENT_PREFIX
from mmrkd.registry import HOOKS

ENTRIES = {'state_dict': METHODS_PREFIX, 'ema_state_dict': f'module.{METHODS_PREFIX}'}


@HOOKS.register_module()
class SplitCheckpointHook(Hook):
    """Moves the methods' weights out of ``checkpoint['state_dict']`` into ``checkpoint['mmrkd']`` while saving.

    What stays in ``state_dict`` is the student under its plain names. It runs after ``EMAHook``, which swaps the
    averaged weights in, and so needs another priority than :class:`MergeCheckpointHook`.
    """

    priority = 'VERY_LOW'

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Splits both the weights and, if there are any, their moving averages."""
        checkpoint[METHOD_STATE] = {
            entry: {k: checkpoint[entry].pop(k) for k in list(checkpoint[entry]) if k.startswith(prefix)}
            for entry, prefix in ENTRIES.items()
            if entry in checkpoint
        }
        weights = checkpoint['state_dict']
        for key in [k for k in weights if k.startswith(STUDENT_PREFIX)]:  # only a model that FSDP wraps has them
            weights[key[len(STUDENT_PREFIX) :]] = weights.pop(key)


@HOOKS.register_module()
class MergeCheckpointHook(Hook):
    """Puts the methods' weights back while loading, before ``EMAHook`` sees the checkpoint."""

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Merges ``checkpoint['mmrkd']``.

        Raises:
            ValueError: The run is to be resumed, or a variant that the methods trained is to be tested, from a
                checkpoint that has no state of the methods.
        """
        saved = checkpoint.get(METHOD_STATE)
        if saved is not None:
            for entry, weights in saved.items():
                checkpoint[entry].update(weights)
            return
        if runner._resume:
            raise ValueError(
                f'cannot resume the distillation: the checkpoint has no entry {METHOD_STATE!r} with the state of its '
                'methods. It is a plain checkpoint; to start from its weights use load_from instead of resume.'
            )
        # The test loop is built only for testing; until then it is its config, whose keys are attributes too.
        loop = runner._test_loop
        untrained = set(getattr(loop, 'variants', ())) - {'student', 'teacher'}
        if untrained and not isinstance(loop, dict):
            raise ValueError(
                f'cannot test {sorted(untrained)}: the checkpoint has no entry {METHOD_STATE!r}, so what the methods '
                'trained is not in it. It is a plain checkpoint; test the variant student, or give one of the training.'
            )
