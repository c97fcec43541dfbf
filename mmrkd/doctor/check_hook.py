"""The pre-flight check in brief, at the start of a training."""

import os
from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch.distributed.fsdp import FullyShardedDataParallel

from mmrkd.doctor.examination import examine, examine_run, quiet, untouched_randomness
from mmrkd.doctor.report import FaultError, Report
from mmrkd.doctor.settings import examine_optimizer, examine_settings
from mmrkd.engine.launch import build_runner
from mmrkd.engine.prepare import is_distillation, prepare_config


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
        report, teacher = Report(self.ignore), model.teacher.model
        datasets = dict(train_dataloader=runner.train_dataloader.dataset)
        if runner.val_loop is not None:
            datasets['val_dataloader'] = runner.val_dataloader.dataset
        examine_settings(runner.cfg, report)
        examine_optimizer(model, runner.optim_wrapper, report)
        if any(isinstance(module, FullyShardedDataParallel) for module in runner.model.modules()):
            print_log('The weights are sharded: run tools/check_distill.py, no model runs in this check.', 'current')
        else:
            buffers = {name: value.clone() for name, value in teacher.named_buffers()}
            with untouched_randomness(), quiet():
                examine_run(deepcopy(model), datasets, runner.cfg, report, thorough=False)
            with torch.no_grad():
                for name, value in teacher.named_buffers():  # losses such as GHM count in buffers
                    value.copy_(buffers[name])
        if report.faults:
            raise FaultError(f'{report.problems}\n(--ignore NAME accepts a problem, --no-check skips the check)')
        print_log(f'pre-flight check (--no-check skips it)\n{report}', 'current')
        self.passed = True


def train_checked(cfg: Config, ignore: Iterable[str] = (), allow_pickle: bool = False) -> Any:
    """Trains a config; if it is a distillation, examines it first, and explains by name what keeps it from starting.

    Args:
        cfg: Config of a run, not prepared yet.
        ignore: Names of faults to accept.
        allow_pickle: Whether the checkpoint that the run starts from may run code of its own.

    Raises:
        FaultError: The distillation has faults.
    """
    hook = CheckHook(Report(ignore).ignore)
    try:
        runner = build_runner(prepare_config(cfg), allow_pickle)
        if is_distillation(cfg):
            runner.register_hook(hook)
        return runner.train()
    except FaultError:
        raise
    except Exception as error:  # before the first iteration it is the user's config that is wrong, most likely
        if hook.passed or not is_distillation(cfg) or os.environ.get('MMRKD_DEBUG') or cfg.get('launcher') != 'none':
            raise
        report = examine(cfg, ignore=ignore)
        if not report.faults:
            raise
        raise FaultError(report.problems) from error
