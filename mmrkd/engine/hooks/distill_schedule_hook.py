"""How strongly a distillation acts, over the training."""

import math
from typing import Any, Optional

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmrkd.registry import HOOKS


@HOOKS.register_module()
class DistillScheduleHook(Hook):
    r"""Multiplies all terms of a method by a factor that rises, stays at 1, falls and ends.

    .. code:: text

        1 |          ________________
          |         /                \
        0 |________/                  \________
                begin  begin+warmup  decay   end

    While the factor is 0 the method is not run, and if none is run neither is the teacher: the training is the plain
    one. The factor depends on the progress alone, so a resumed run goes on with the same one. Several hooks may
    schedule several methods.

    Args:
        begin: Where the factor leaves 0. Defaults to 0.
        warmup: Length of the linear rise. Defaults to 0.
        decay: Where the factor begins to fall; ``None``: it stays at 1 until ``end``.
        end: From here on it is 0; ``None``: never.
        shape: Of the fall, ``'linear'`` or ``'cosine'``. Defaults to ``'linear'``.
        by_epoch: Whether the numbers are epochs (fractions count) or iterations. Defaults to True.
        method: Name of the method in the log (``'era'``); ``None`` schedules all. Defaults to None.

    Raises:
        ValueError: The numbers are out of order, or the distillation has no method of that name.
    """

    def __init__(
        self,
        begin: float = 0,
        warmup: float = 0,
        decay: Optional[float] = None,
        end: Optional[float] = None,
        shape: str = 'linear',
        by_epoch: bool = True,
        method: Optional[str] = None,
    ) -> None:
        decay_or_end = next((x for x in (decay, end) if x is not None), math.inf)
        ordered = 0 <= begin <= begin + warmup <= decay_or_end <= (math.inf if end is None else end)
        if not ordered or (decay is not None and end is None):
            raise ValueError(
                'expected 0 <= begin <= begin + warmup <= decay <= end, and an end where there is a decay; found '
                f'begin={begin}, warmup={warmup}, decay={decay}, end={end}'
            )
        if shape not in ('linear', 'cosine'):
            raise ValueError(f"shape must be 'linear' or 'cosine', found {shape!r}")
        self.begin, self.warmup, self.decay, self.end, self.shape = begin, warmup, decay, end, shape
        self.by_epoch, self.method = by_epoch, method

    def factor(self, progress: float) -> float:
        """Returns the factor in [0, 1] at a point of the training."""
        if progress < self.begin or (self.end is not None and progress >= self.end):
            return 0.0
        if progress < self.begin + self.warmup:
            return (progress - self.begin) / self.warmup
        if self.decay is not None and progress > self.decay:
            left = (self.end - progress) / (self.end - self.decay)
            return left if self.shape == 'linear' else (1 - math.cos(math.pi * left)) / 2
        return 1.0

    def before_train(self, runner: Runner) -> None:
        """Checks the name of the method."""
        scheduled_methods(runner, self.method)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Sets the factor."""
        for method in scheduled_methods(runner, self.method):
            method.scale = self.factor(progress_of(runner, self.by_epoch))


def scheduled_methods(runner: Runner, name: Optional[str]) -> list[Any]:
    """Returns the methods of a run's distiller that go by a name, or all of them.

    Raises:
        ValueError: There is none.
    """
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    chosen = [method for own, method in model.methods.items() if name in (None, own)]
    if not chosen:
        raise ValueError(f'the distillation has the methods {list(model.methods)}, but none is called {name!r}')
    return chosen


def progress_of(runner: Runner, by_epoch: bool) -> float:
    """Returns how far the training is, in epochs (with fractions) or iterations."""
    return runner.iter / len(runner.train_dataloader) if by_epoch else runner.iter
