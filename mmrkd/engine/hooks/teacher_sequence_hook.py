"""Teachers that teach one after the other."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Optional

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmrkd.engine.hooks.distill_schedule_hook import progress_of
from mmrkd.engine.optimizer_state import optimizers_of
from mmrkd.registry import HOOKS


@HOOKS.register_module()
class TeacherSequenceHook(Hook):
    """Lets the methods of one teacher at a time be run, in a given order.

    With ``methods=[dict(type='mmrkd.ERA', teacher=['small', 'big'])]`` there is one ERA for each teacher, with modules
    of its own; this hook says whose turn it is. It follows from the progress alone, so a resumed run goes on with the
    teacher that was there. Methods that listen to no teacher of the sequence, or to none, are left alone.

    Args:
        order: Names of the teachers.
        at: Ascending milestones, one fewer than teachers: where the second, third, ... takes over.
        by_epoch: Whether they are epochs or iterations. Defaults to True.
        restart_optimizer: Whether the optimiser forgets its moments when a teacher takes over, as a training that
            begins anew does (MTPD, arXiv 2308.09105). The learning rate is that of ``param_scheduler``. Defaults to
            False.

    Raises:
        ValueError: The numbers do not fit, or a teacher has no method that listens to it.
    """

    def __init__(
        self, order: Sequence[str], at: Sequence[float], by_epoch: bool = True, restart_optimizer: bool = False
    ) -> None:
        if list(at) != sorted(set(at)) or len(at) != len(order) - 1 or len(set(order)) != len(order):
            raise ValueError(
                f'expected different teachers and ascending milestones, one fewer, found {list(order)} and {list(at)}'
            )
        self.order, self.at, self.by_epoch, self.restart = list(order), list(at), by_epoch, restart_optimizer
        self.present: Optional[str] = None

    def before_train(self, runner: Runner) -> None:
        """Checks that each teacher is there and listened to."""
        listened = {method.teacher for method in _methods(runner)}
        missing = [name for name in self.order if name not in listened]
        if missing:
            raise ValueError(f'no method listens to the teachers {missing}; there are {sorted(filter(None, listened))}')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Gives the present teacher its turn."""
        progress = progress_of(runner, self.by_epoch)
        turn = bisect_right(self.at, progress)
        present = self.order[turn]
        for method in _methods(runner):
            if method.teacher in self.order:
                method.on_duty = method.teacher == present
        if present != self.present:
            runner.logger.info(f'the teacher is {present!r} from iteration {runner.iter + 1} on')
            self.present = present
        begins = runner.iter and turn > bisect_right(self.at, progress * (runner.iter - 1) / runner.iter)
        if begins and self.restart:  # told from the progress, so that a run which is resumed right here does it too
            for optimizer in optimizers_of(runner.optim_wrapper).values():
                optimizer.state.clear()


def _methods(runner: Runner) -> list[Any]:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    return list(model.methods.values())
