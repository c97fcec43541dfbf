"""A distiller does not train in a runner that would lose what its methods learn."""

from collections.abc import Iterable
from typing import Any

from mmengine.logging import MessageHub

NEEDED = frozenset({'SplitCheckpointHook', 'MergeCheckpointHook'})


def attend(model: Any, hook: type) -> None:
    """Notes that one of the checkpoint hooks, or a class of the user that extends it, is in the run of a distiller."""
    model.attending = model.attending | {base.__name__ for base in hook.__mro__} & NEEDED


def require_hooks(model: Any) -> None:
    """Stops a run before its first step if the hooks that keep checkpoints plain and whole are not in it.

    Whether a runner is at work is known from mmengine's message hub; loops that are written by hand are left alone.

    Raises:
        RuntimeError: A runner trains or tests the distiller without them; the message has the line to add.
    """
    if NEEDED <= model.attending:
        return
    stage = MessageHub.get_current_instance().get_info('loop_stage', None)
    if stage is not None:
        raise RuntimeError(
            f'a {type(model).__name__} runs in a runner ({stage}) that would not save and restore its methods '
            f'({", ".join(sorted(NEEDED - model.attending))} missing): add\n'
            "  runner_type = 'mmrkd.Runner'\n"
            "to the config and start it with mmdet's or mmpretrain's tools/train.py, mmrkd.Runner.from_cfg(cfg), or "
            '`mmrkd train`.'
        )


def require_needed_hooks(model: Any, hooks: Iterable[Any]) -> None:
    """Stops a training before its first step if a hook that a method needs is not there.

    Args:
        model: The distiller; its methods say which (:attr:`DistillMethod.needed_hooks`).
        hooks: Those of the run.

    Raises:
        ValueError: It is missing; the message has the line to add.
    """
    present = {base.__name__ for hook in hooks for base in type(hook).__mro__}
    for name, method in model.methods.items():
        for needed in method.needed_hooks:
            if needed not in present:
                line = f"dict(type='mmrkd.{needed}', ...)"
                raise ValueError(f'{name} needs a {needed}, and the run has none: add {line} to custom_hooks')
