"""Training loops that start where a checkpoint left off, in the middle of an epoch too."""

from collections.abc import Iterator
from typing import Any, Optional

from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import DataLoader

from mmrkd.engine.random_state import restore_random_state
from mmrkd.registry import LOOPS


class _Resumable:
    """What both loops share. Without a checkpoint they are mmengine's, draw for draw."""

    random_state: Optional[dict] = None
    validation_is_due: bool = False

    def continue_from(self, random_state: Optional[dict], validated: bool) -> None:
        """Takes up what a checkpoint says; called while it is loaded.

        Args:
            random_state: Of this process when it was saved, ``None`` if it is unknown.
            validated: Whether it was saved after the validation that follows it.
        """
        self.random_state, self.validation_is_due = random_state, not validated

    def _restore(self) -> None:
        if self.random_state is not None:
            restore_random_state(self.random_state)
            self.random_state = None

    def _validate_if_due(self, progress: int, maximum: int) -> None:
        self._decide_current_val_interval()
        due = progress >= self.val_begin and (progress % self.val_interval == 0 or progress == maximum)
        if self.runner.val_loop is not None and due:
            self.runner.val_loop.run()

    def _validate_what_was_missed(self, progress: int, maximum: int) -> None:
        """A run that was killed after it saved and before it had validated owes the best checkpoint, for example."""
        if self.validation_is_due:
            self.validation_is_due = False
            self._validate_if_due(progress, maximum)


@LOOPS.register_module()
class ResumableEpochLoop(_Resumable, EpochBasedTrainLoop):
    """mmengine's ``EpochBasedTrainLoop``, exact when it is resumed; takes the same arguments.

    From a checkpoint in the middle of an epoch mmengine starts that epoch again. Here it goes on with the next batch.
    With ``num_workers=0`` the batches before it are not loaded; with workers they are, and thrown away, because the
    workers' random states are only reached that way.
    """

    def run(self) -> Any:
        """Trains and returns the model."""
        self.runner.call_hook('before_train')
        if self._done_in_epoch() == 0:
            self._restore()
            self._validate_what_was_missed(self._epoch, self._max_epochs)
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._validate_if_due(self._epoch, self._max_epochs)
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        """Trains one epoch, or what is left of it."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        done = self._done_in_epoch()
        batches = iter(self.dataloader)
        _skip(batches, self.dataloader, done)
        self._restore()
        for index, batch in enumerate(batches, start=done):
            self.run_iter(index, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _done_in_epoch(self) -> int:
        done = self._iter - self._epoch * len(self.dataloader)
        if 0 <= done <= len(self.dataloader):
            return done
        if self.random_state is not None:
            print_log(f'the checkpoint is of epochs of another length: epoch {self._epoch + 1} starts anew', 'current')
        self.random_state = None
        return 0


@LOOPS.register_module()
class ResumableIterLoop(_Resumable, IterBasedTrainLoop):
    """mmengine's ``IterBasedTrainLoop``, exact when it is resumed; takes the same arguments.

    With ``num_workers=0`` what was trained is skipped without being loaded. With workers mmengine skips, in the way of
    its version, and augmentations that workers draw may differ from those of an uninterrupted run.
    """

    def run(self) -> Any:
        """Trains and returns the model."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self._skip_trained()
        self._restore()
        self._validate_what_was_missed(self._iter, self._max_iters)
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._validate_if_due(self._iter, self._max_iters)
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def _skip_trained(self) -> None:
        if getattr(self, 'fast_forward_on_resume', False):  # newer mmengine: the user wants to begin with any data
            return
        if self._iter and self.dataloader.num_workers == 0:
            self.dataloader_iterator = _endless(self.dataloader, self._iter)
            next(self.dataloader_iterator)
        elif self._iter and hasattr(self.dataloader_iterator, 'skip_iter'):  # newer mmengine
            self.dataloader_iterator.skip_iter(self._iter)
        else:
            for _ in range(self._iter):
                next(self.dataloader_iterator)


def _skip(batches: Iterator, dataloader: DataLoader, count: int) -> int:
    """Moves an iterator of a dataloader on by ``count`` batches and returns how many there were."""
    for skipped in range(count):
        try:
            batches._next_index() if dataloader.num_workers == 0 else next(batches)
        except StopIteration:
            return skipped
    return count


def _endless(dataloader: DataLoader, skipped: int) -> Iterator[Any]:
    """Yields ``None`` once ``skipped`` batches lie behind, then the batches that follow, epoch after epoch.

    The epochs are counted as mmengine's own endless iterator does, so that a sampler shuffles them alike.
    """
    epoch, batches = 0, iter(dataloader)
    skipped -= _skip(batches, dataloader, skipped)
    while skipped:
        epoch, batches = epoch + 1, _next_epoch(dataloader, epoch + 1)
        skipped -= _skip(batches, dataloader, skipped)
    yield None
    while True:
        yield from batches
        epoch, batches = epoch + 1, _next_epoch(dataloader, epoch + 1)


def _next_epoch(dataloader: DataLoader, epoch: int) -> Iterator[Any]:
    for sampler in (dataloader.sampler, getattr(dataloader.batch_sampler, 'sampler', None)):
        if hasattr(sampler, 'set_epoch'):
            sampler.set_epoch(epoch)
            break
    return iter(dataloader)
