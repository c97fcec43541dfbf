"""Checkpoints that plain mmdet and mmpretrain load, and that a distillation resumes from."""

from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from mmrkd.checkpoint import METHOD_STATE
from mmrkd.engine.optimizer_state import names_in, optimizers_of, rearrange
from mmrkd.models.attendance import attend, require_needed_hooks
from mmrkd.models.method_state import describe_methods, present_names, restored_state
from mmrkd.models.state_names import METHODS_PREFIX, STUDENT_PREFIX
from mmrkd.registry import HOOKS

ENTRIES = {'state_dict': METHODS_PREFIX, 'ema_state_dict': f'module.{METHODS_PREFIX}'}
KNOWN, OPTIMIZED = 'methods', 'optimized'
"""Entries of what is saved beside the weights: which methods there were, and the names of what was optimised."""


class _AttendingHook(Hook):
    """Says to the distiller that it is there, as soon as there is one."""

    def before_run(self, runner: Runner) -> None:
        """Runs before training, validation or testing."""
        self._attend(runner)

    def before_train(self, runner: Runner) -> None:
        """The model of a FlexibleRunner is not there before; hooks that methods need must be in the run, too."""
        self._attend(runner)
        require_needed_hooks(distiller_of(runner), runner.hooks)

    def before_val(self, runner: Runner) -> None:
        """The same."""
        self._attend(runner)

    def before_test(self, runner: Runner) -> None:
        """The same."""
        self._attend(runner)

    def _attend(self, runner: Runner) -> None:
        if isinstance(getattr(runner, 'model', None), nn.Module):
            attend(distiller_of(runner), type(self))


@HOOKS.register_module()
class SplitCheckpointHook(_AttendingHook):
    """Moves the methods' weights out of ``checkpoint['state_dict']`` into ``checkpoint['mmrkd']`` while saving.

    What stays in ``state_dict`` is the student under its plain names. It runs after ``EMAHook``, which swaps the
    averaged weights in, and so needs another priority than :class:`MergeCheckpointHook`. Beside the weights it notes
    which methods there are and what the optimiser holds by name, so that methods may be added, removed and reordered
    between two runs.
    """

    priority = 'VERY_LOW'

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Splits both the weights and, if there are any, their moving averages.

        Raises:
            ValueError: A loss of the last step was not finite, so that the weights are not worth saving.
        """
        _require_sound(distiller_of(runner), checkpoint['state_dict'])
        checkpoint[METHOD_STATE] = {
            entry: {k: checkpoint[entry].pop(k) for k in list(checkpoint[entry]) if k.startswith(prefix)}
            for entry, prefix in ENTRIES.items()
            if entry in checkpoint
        }
        weights = checkpoint['state_dict']
        for key in [k for k in weights if k.startswith(STUDENT_PREFIX)]:  # only a model that FSDP wraps has them
            weights[key[len(STUDENT_PREFIX) :]] = weights.pop(key)
        model = distiller_of(runner)
        checkpoint[METHOD_STATE][KNOWN] = describe_methods(model.methods)
        if 'optimizer' in checkpoint and not _sharded(runner.model):
            optimizers = optimizers_of(runner.optim_wrapper)
            checkpoint[METHOD_STATE][OPTIMIZED] = {key: names_in(o, model) for key, o in optimizers.items()}


@HOOKS.register_module()
class MergeCheckpointHook(_AttendingHook):
    """Puts the methods' weights back when a run is resumed or tested, before ``EMAHook`` sees the checkpoint.

    A training that merely starts from the weights of another one (``load_from``) gets its student alone: what the
    methods of that run had learnt belongs to another teacher or another stage.

    Args:
        keep_methods: Whether such a training takes over the methods' weights, too, as far as they fit: to go on with
            more branches, for example. Defaults to False.
    """

    priority = 'VERY_HIGH'

    def __init__(self, keep_methods: bool = False) -> None:
        self.keep_methods = keep_methods

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Merges ``checkpoint['mmrkd']``, and brings the state of the optimiser into the present order.

        Raises:
            ValueError: The run is to be resumed, or a variant that the methods trained is to be tested, from a
                checkpoint that has no state of the methods or one that does not fit them.
        """
        saved = checkpoint.get(METHOD_STATE)
        if saved is None:
            return _require_no_methods(runner)
        starting = not runner._resume and isinstance(runner._train_loop, BaseLoop)
        if starting and not self.keep_methods:
            return
        model = distiller_of(runner)
        known, sharded = saved.get(KNOWN, {}), _sharded(runner.model)
        for entry, prefix in ENTRIES.items():
            if entry in saved:
                lead = prefix[: -len(METHODS_PREFIX)]
                own = {key[len(lead) :]: value for key, value in saved[entry].items()}
                strict = entry == 'state_dict' and not sharded and not starting
                own = restored_state(own, model.methods, known, strict)
                checkpoint[entry].update({lead + key: value for key, value in own.items()})
        if runner._resume and OPTIMIZED in saved and 'optimizer' in checkpoint:
            names = present_names(known, model.methods)
            rearrange(checkpoint, saved[OPTIMIZED], runner.optim_wrapper, model, names)


def distiller_of(runner: Runner) -> Any:
    """Returns the model of a run without the parallel wrapper around it."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _require_no_methods(runner: Runner) -> None:
    if runner._resume:
        raise ValueError(
            f'cannot resume the distillation: the checkpoint has no entry {METHOD_STATE!r} with the state of its '
            'methods. It is a plain checkpoint; to start from its weights use load_from instead of resume.'
        )
    # The test loop is built only for testing; until then it is its config, whose keys are attributes too.
    loop = runner._test_loop
    model = distiller_of(runner)
    untrained = sorted(v for v in getattr(loop, 'variants', ()) if v in model.variants and model.variants[v].learned)
    if untrained and isinstance(loop, BaseLoop):
        raise ValueError(
            f'cannot test {untrained}: the checkpoint has no entry {METHOD_STATE!r}, so what the methods '
            'trained is not in it. It is a plain checkpoint; test the variant student, or give one of the training.'
        )


def _require_sound(model: Any, weights: dict[str, Any]) -> None:
    """Raises ValueError if a loss that was not finite came into the weights: this process's own, or another's."""
    guard = getattr(model, 'guard', None)
    if guard is None:
        return
    guard.settle()
    if guard.on_nonfinite == 'stop' and get_world_size() > 1:  # gradients are averaged, losses are not
        broken = [n for n, _ in model.named_parameters() if n in weights and not weights[n].isfinite().all()]
        if broken:
            raise ValueError(
                f'nothing is saved: {len(broken)} weights are not finite ({", ".join(broken[:4])}). A loss of another '
                'process was not, see its message. Go on from the last checkpoint.'
            )


def _sharded(model: nn.Module) -> bool:
    return any(isinstance(module, FullyShardedDataParallel) for module in model.modules())
