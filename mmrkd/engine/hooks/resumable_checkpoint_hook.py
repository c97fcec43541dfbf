"""Checkpoints that a killed run goes on from as if nothing had happened."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmrkd.checkpoint import RUN_STATE
from mmrkd.engine.checkpoint_backend import NAME, CheckpointBackend
from mmrkd.engine.hooks.checkpoint_hooks import distiller_of
from mmrkd.engine.random_state import capture_random_state
from mmrkd.registry import HOOKS


@HOOKS.register_module()
class ResumableCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, made safe against being killed; takes the same arguments.

    - A file appears under its name when it is complete, and older ones are removed only after that, so that there is
      an intact checkpoint at any moment, with ``max_keep_ckpts=1`` too. On remote storage mmengine's backend writes.
    - ``checkpoint['mmrkd_run']`` holds what mmengine leaves out and an exact continuation needs: the random states of
      every process, the seed of the sampler, whether the validation that was due has been done, and a hash of the
      teacher. :class:`mmrkd.engine.loops.ResumableEpochLoop` and ``ResumableIterLoop`` take it up.
    - A validation without a single detection, for which mmdet's COCO metric gives no value at all, does not end the
      training with a ``KeyError``: that ``save_best`` has nothing to compare is said, and training goes on.

    Args:
        on_write_error: What happens if a checkpoint cannot be written (disk full, quota): ``'stop'`` ends the training
            with an error, ``'continue'`` says so and trains on. The previous checkpoint stays in both cases.
        on_other_teacher: What a resume does if a teacher's weights are not those of the run so far: ``'stop'``, or
            ``'continue'`` where a hook exchanges them on purpose.
        **kwargs: Arguments of :class:`mmengine.hooks.CheckpointHook`.
    """

    def __init__(self, *args: Any, on_write_error: str = 'stop', on_other_teacher: str = 'stop', **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, value in dict(on_write_error=on_write_error, on_other_teacher=on_other_teacher).items():
            if value not in ('stop', 'continue'):
                raise ValueError(f"{name} must be 'stop' or 'continue', found {value!r}")
        self.on_write_error, self.on_other_teacher = on_write_error, on_other_teacher
        self._random_states: Optional[list[dict]] = None
        self._teachers: Optional[dict[str, str]] = None

    def before_train(self, runner: Runner) -> None:
        """Takes the place of mmengine's local storage, and hashes the teachers before they are used."""
        super().before_train(runner)
        self._fingerprints(runner)
        if runner._resume:  # without it a validation that is made up for would not write its best score down
            self.last_ckpt = runner.message_hub.get_info('last_ckpt', None)
            if get_rank() == 0:
                self._remove_older_best(runner)
        if self.file_client_args is None and type(self.file_backend) is LocalBackend:
            self.backend_args, self.file_backend = dict(backend=NAME), CheckpointBackend()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Adds the state of the run."""
        checkpoint[RUN_STATE] = dict(
            random=self._random_states or [capture_random_state()],
            sampler_seed=getattr(_sampler(runner), 'seed', None),
            validated=runner.message_hub.get_info('loop_stage', None) == 'val',
            teachers=self._fingerprints(runner),
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Hands the state of the run to the loop, if a run is resumed.

        Raises:
            ValueError: A teacher is another one than that of the run so far.
        """
        if not runner._resume:
            return
        state = checkpoint.get(RUN_STATE)
        if state is None or len(state['random']) != get_world_size():
            found = 'no random states' if state is None else f'the random states of {len(state["random"])} processes'
            print_log(
                f'the checkpoint has {found}, and this run has {get_world_size()} process(es): it is resumed, but with '
                'other random numbers than an uninterrupted run would have had.',
                'current',
            )
        if state is None:
            return
        self._require_same_teachers(runner, state)
        if state['sampler_seed'] is not None and hasattr(_sampler(runner), 'seed'):
            _sampler(runner).seed = state['sampler_seed']  # where the config fixes no seed, a new run has drawn another
        random = state['random'][get_rank()] if len(state['random']) == get_world_size() else None
        if hasattr(runner.train_loop, 'continue_from'):
            runner.train_loop.continue_from(random, state['validated'])

    def _save_checkpoint_with_step(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        with self._writing():
            super()._save_checkpoint_with_step(runner, *args, **kwargs)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not self.save_best:
            return
        missing = [key for key in self.key_indicators if key not in [*metrics, 'auto']]
        for key in missing:
            beside = [name for name in metrics if name.rpartition('/')[0] == key.rpartition('/')[0]]
            if beside:
                raise ValueError(f'save_best={key!r}: there is no such metric, the validation gives {beside}')
            print_log(
                f'no best checkpoint is looked for: the validation gave no {key} (no prediction at all?)', 'current'
            )
        if missing:
            return
        with self._writing():
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._random_states = all_gather_object(capture_random_state())  # only one process comes as far as saving
        try:
            yield
        except OSError as error:
            message = (
                f'the checkpoint could not be written: {error}. The previous one is intact. Make room on the disk '
                '(max_keep_ckpts=1 keeps a single checkpoint), then go on with --resume.'
            )
            if self.on_write_error == 'stop':
                raise OSError(error.errno, message) from error
            print_log(f'{message} Training goes on without it.', 'current')
        else:
            if isinstance(self.file_backend, CheckpointBackend):
                self.file_backend.remove_outdated()
        finally:
            self._random_states = None

    def _remove_older_best(self, runner: Runner) -> None:
        """Removes what a killed process could not, after it had written a better one and noted it as the best."""
        for key, best in runner.message_hub.runtime_info.items():
            name = re.fullmatch(r'(best_.+_(?:iter|epoch)_)(\d+)\.pth', os.path.basename(str(best)))
            if key.startswith('best_ckpt') and name and os.path.isfile(best):
                for path in Path(best).parent.glob('best_*.pth'):
                    older = re.fullmatch(re.escape(name[1]) + r'(\d+)\.pth', path.name)
                    if older and int(older[1]) < int(name[2]):
                        path.unlink()

    def _require_same_teachers(self, runner: Runner, state: dict[str, Any]) -> None:
        """A teacher that joined or left is said by the methods that listen to it."""
        before, present = state.get('teachers'), self._fingerprints(runner)
        if before is None:  # checkpoints of before know one teacher by its weights
            before = dict(default=state.get('teacher'))
            present = {name: t.fingerprint(weights_only=True) for name, t in _teachers(runner).items()}
        for name, found in present.items():
            expected = before.get(name, found)
            if expected is None or expected == found:
                continue
            message = (
                f'another teacher ({name}): its weights are not those of the run so far (SHA-256 {expected[:12]}, '
                f'found {found[:12]}).'
            )
            if self.on_other_teacher == 'stop':
                raise ValueError(
                    f'cannot resume with {message} Was its file replaced? Put the old one back, or start a new run '
                    "with load_from instead of resume. If it is meant, set on_other_teacher='continue' in "
                    'default_hooks.checkpoint.'
                )
            print_log(f'resumed with {message}', 'current')

    def _fingerprints(self, runner: Runner) -> dict[str, str]:
        if self._teachers is None:
            self._teachers = {name: teacher.fingerprint() for name, teacher in _teachers(runner).items()}
        return self._teachers


def _teachers(runner: Runner) -> dict[str, Any]:
    return dict(getattr(distiller_of(runner), 'teachers', {}))  # none where a plain model is trained


def _sampler(runner: Runner) -> Any:
    loader = runner.train_loop.dataloader
    return loader.sampler if hasattr(loader.sampler, 'seed') else getattr(loader.batch_sampler, 'sampler', None)
