"""Branches that join in while the training runs."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Optional

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmrkd.engine.hooks.distill_schedule_hook import progress_of, scheduled_methods
from mmrkd.registry import HOOKS


@HOOKS.register_module()
class ExpandHook(Hook):
    """Adds a branch to :class:`mmrkd.models.ERA` at each milestone.

    ERA starts with ``start_branches`` of its ``num_branches``. The others are there from the first step, with an output
    of exactly 0, so that nothing jumps when one joins in; they belong to the optimiser, to EMA, to every checkpoint and
    to the parallel wrapper all the time. How many are active follows from the progress alone, also after a resume.

    Args:
        at: Ascending milestones; at each of them one branch joins in.
        by_epoch: Whether they are epochs or iterations. Defaults to True.
        method: Name of the method, if there are several. Defaults to None.

    Raises:
        ValueError: The milestones are not ascending, or more than there are branches to add.
    """

    def __init__(self, at: Sequence[float], by_epoch: bool = True, method: Optional[str] = None) -> None:
        if list(at) != sorted(set(at)):
            raise ValueError(f'at: expected ascending milestones, found {list(at)}')
        self.at, self.by_epoch, self.method = list(at), by_epoch, method

    def before_train(self, runner: Runner) -> None:
        """Checks that there are as many branches to add as milestones."""
        for method in scheduled_methods(runner, self.method):
            spare = getattr(method, 'num_branches', 0) - getattr(method, 'start_branches', 0)
            if spare < len(self.at):
                raise ValueError(
                    f'{len(self.at)} milestones, but {type(method).__name__} has {spare} branches to add: it starts '
                    'with start_branches and ends with num_branches. Name the method if there are several.'
                )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Sets the number of active branches."""
        joined = bisect_right(self.at, progress_of(runner, self.by_epoch))
        for method in scheduled_methods(runner, self.method):
            method.active_branches = method.start_branches + joined
