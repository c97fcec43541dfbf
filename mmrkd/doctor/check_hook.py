"""The pre-flight check in brief, at the start of a training."""

import gc
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Optional

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch.distributed.fsdp import FullyShardedDataParallel

from mmrkd.doctor.examination import examine, examine_run
from mmrkd.doctor.report import FaultError, Report
from mmrkd.doctor.settings import examine_optimizer, examine_settings
from mmrkd.engine.isolation import quiet, untouched_randomness
from mmrkd.engine.launch import build_runner
from mmrkd.engine.prepare import TRAINING, check_data, is_distillation

HOW_TO_SKIP = '--no-check, or check = False in the config, skips it'
HOW_TO_GO_ON = f"(--ignore NAME, or check = dict(ignore=['NAME']) in the config, accepts a problem; {HOW_TO_SKIP})"


class CheckHook(Hook):
    """Examines a distillation before its first iteration and stops it if something is wrong.

    It works on a copy of the model, reads images through copies of the datasets and restores every random state, so
    that the training is the same with and without it, bit for bit.

    Args:
        ignore: Names of faults to accept.
    """

    priority = 'LOWEST'

    def __init__(self, ignore: Iterable[str] = ()) -> None:
        self.ignore = tuple(ignore)
        self.passed = False

    def before_train(self, runner: Runner) -> None:
        """Logs wiring, losses of one batch and the teacher's metric on a few images.

        Raises:
            FaultError: Something is wrong; the message names all of it.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        report = Report(self.ignore)
        datasets = dict(train_dataloader=runner.train_dataloader.dataset)
        if runner.val_loop is not None:
            datasets['val_dataloader'] = runner.val_dataloader.dataset
        examine_settings(runner.cfg, report)
        examine_optimizer(model, runner.optim_wrapper, report)
        if any(isinstance(module, FullyShardedDataParallel) for module in runner.model.modules()):
            print_log('The weights are sharded: run tools/check_distill.py, no model runs in this check.', 'current')
        else:
            with untouched_randomness(), quiet():
                examine_run(deepcopy(model), datasets, runner.cfg, report, thorough=False)
            gc.collect()  # heads and their samplers refer to each other: the copy would wait for the next collection
        if report.faults:
            raise FaultError(f'{report.problems}\n{HOW_TO_GO_ON}')
        print_log(f'pre-flight check ({HOW_TO_SKIP})\n{report}', 'current')
        self.passed = True


def accepted_faults(cfg: Mapping) -> Optional[tuple[str, ...]]:
    """Returns the faults that ``check`` in a config accepts, ``None`` if it leaves the check out.

    Args:
        cfg: Config of a run. ``check`` is ``dict(ignore=[...])``, True (or not there), or False.

    Raises:
        ValueError: ``check`` is something else, or names a fault that does not exist.
    """
    check = cfg.get('check', True)
    if check is None or isinstance(check, bool):
        return () if check or check is None else None
    if isinstance(check, Mapping) and set(check) <= {'ignore'}:
        ignore = check.get('ignore') or ()
        return tuple(Report([ignore] if isinstance(ignore, str) else ignore).ignore)
    raise ValueError(f"check: expected dict(ignore=['name of a fault', ...]), True or False, found {check!r}")


@contextmanager
def naming_faults(cfg: Mapping, hook: Optional[CheckHook] = None) -> Iterator[None]:
    """Explains by name what keeps a distillation from starting: before the first iteration it is the config, mostly.

    Args:
        cfg: Config of the run.
        hook: The check of this run, if it has come as far; once that has passed, errors are raised as they are.

    Raises:
        FaultError: The distillation has faults.
    """
    try:
        yield
    except FaultError:
        raise
    except Exception as error:
        ignore, parallel = accepted_faults(cfg), cfg.get('launcher', 'none') != 'none'
        started = hook is not None and hook.passed
        if ignore is None or parallel or started or os.environ.get('MMRKD_DEBUG') or not is_distillation(cfg):
            raise
        report = examine(cfg if isinstance(cfg, Config) else Config(dict(cfg)), ignore=ignore)
        if not report.faults:
            raise
        raise FaultError(report.problems) from error


def train_checked(cfg: Config, ignore: Iterable[str] = (), allow_pickle: bool = False) -> Any:
    """Trains a config, with any runner; if it is a distillation, examines it first.

    Args:
        cfg: Config of a run; changed in place.
        ignore: Names of faults to accept, beside those that the config names in ``check``.
        allow_pickle: Whether the checkpoint that the run starts from may run code of its own.

    Raises:
        FaultError: The distillation has faults.
        FileNotFoundError: Data of a plain config is missing.
    """
    accepted = accepted_faults(cfg)
    if list(ignore) and accepted is not None and is_distillation(cfg):
        accepted = (*accepted, *Report(ignore).ignore)
        cfg.check = dict(ignore=list(accepted))
    with naming_faults(cfg):
        check_data(cfg, TRAINING)
        runner = build_runner(cfg, allow_pickle)
    if accepted is None or not is_distillation(cfg) or hasattr(runner, 'check_hook'):
        return runner.train()
    hook = CheckHook(accepted)
    runner.register_hook(hook)
    with naming_faults(cfg, hook):
        return runner.train()
