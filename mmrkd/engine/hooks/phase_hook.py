"""Switches the phases of methods that train in phases."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmrkd.models import Distiller, DistillMethod, Progress
from mmrkd.registry import HOOKS


@HOOKS.register_module()
class PhaseHook(Hook):
    """Enters the phases that methods declare (:attr:`DistillMethod.phases`); without any it does nothing.

    Which phase it is follows from the number of finished epochs and nothing else, so a run that is resumed in the
    middle of a phase goes on in it. The optimiser is built before the first phase freezes anything: it always holds
    every parameter, and leaves those without a gradient alone.

    DDP learns which parameters will have gradients when it is built, and waits for all of them. So the model is wrapped
    anew, on all processes, whenever a phase begins; ``find_unused_parameters`` is not needed.

    It also tells each method how far the training is (:attr:`DistillMethod.progress`), which depends on the number of
    iterations alone, so that a ramp goes on in a resumed run where it was.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Checks that each phase has an epoch.

        Raises:
            ValueError: The loop does not count epochs, or ends before the last phase begins.
        """
        loop = runner.train_loop
        for method in _phased(runner):
            if not isinstance(loop, EpochBasedTrainLoop):
                raise ValueError(f'the phases begin at epochs, but {type(loop).__name__} does not count them')
            if loop.max_epochs <= max(method.phase_epochs, default=0):
                raise ValueError(
                    f'phase_epochs={method.phase_epochs} leaves no epoch to the last phase: max_epochs is '
                    f'{loop.max_epochs}'
                )

    def before_train_epoch(self, runner: Runner) -> None:
        """Enters the phase of this epoch, if it is another one."""
        entering = [m for m in _phased(runner) if m.phase != m.phase_of(runner.epoch)]
        for method in entering:
            method.enter_phase(method.phase_of(runner.epoch))
            runner.logger.info(f'{type(method).__name__}: phase {method.phase!r} from epoch {runner.epoch + 1} on')
        if entering and is_model_wrapper(runner.model):
            runner.model = runner.wrap_model(runner.cfg.get('model_wrapper_cfg'), runner.model.module)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Takes what is frozen out of the training mode, into which the loop puts the model after this hook's turn."""
        for method in _phased(runner):
            method.hold_frozen()
        for method in _methods(runner):
            done, total = runner.iter, runner.max_iters
            method.progress = Progress(_epochs(runner), done / total, done, total)


def _epochs(runner: Runner) -> float:
    """Finished epochs with fractions; whole ones where a stream of data does not know its length."""
    try:
        return runner.iter / len(runner.train_dataloader)
    except TypeError:
        return float(runner.epoch)


def _phased(runner: Runner) -> list[DistillMethod]:
    return [method for method in _methods(runner) if method.phases]


def _methods(runner: Runner) -> list[DistillMethod]:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    return list(model.methods.values()) if isinstance(model, Distiller) else []
