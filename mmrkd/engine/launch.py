"""What the commands share: arguments, config, runner, errors."""

import argparse
import functools
import logging
import os
import os.path as osp
import sys
from typing import Any, Callable, Optional

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import RUNNERS, init_default_scope
from mmengine.runner import Runner

from mmrkd.arguments import add_common_arguments
from mmrkd.engine.compose import compose_from_arguments
from mmrkd.engine.prepare import complete_config, is_distillation, prepare_config, use_gloo
from mmrkd.engine.resume import settle_checkpoint
from mmrkd.models.teacher import read_config_file
from mmrkd.registry import drop_empty_scopes, type_names
from mmrkd.stack import require_extra

__all__ = ['add_common_arguments', 'apply_arguments', 'build_runner', 'load_config', 'read_config', 'report_errors']

MEMORY_ADVICE = """The memory was not enough. What needs less, the most effective first:
- a smaller batch: --cfg-options train_dataloader.batch_size=1 optim_wrapper.accumulative_counts=2 (and in proportion)
- mixed precision: --amp
- fewer passes through the teacher's head (ERA): --cfg-options model.methods.0.twi_on=last, or none
- fewer or thinner branches (ERA): --cfg-options model.methods.0.num_branches=2 model.methods.0.kernel_size=1
- smaller images, or a smaller teacher"""


def read_config(path: str) -> Config:
    """Reads a config file, or one that a library ships (``mmdet::...``), and enters its scope."""
    cfg = read_config_file(path)
    require_extra(cfg.get('default_scope'))
    drop_empty_scopes(cfg._cfg_dict)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    return cfg


def load_config(args: argparse.Namespace) -> Config:
    """Reads the config, applies the command line to it and makes it ready to run."""
    return prepare_config(apply_arguments(args))


def apply_arguments(args: argparse.Namespace) -> Config:
    """Reads the config and applies the command line to it; nothing is checked yet."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = compose_from_arguments(read_config(args.config), args)
    cfg.launcher = args.launcher
    cfg.merge_from_dict(args.cfg_options or {})
    cfg.work_dir = (
        args.work_dir or cfg.get('work_dir') or osp.join('work_dirs', osp.splitext(osp.basename(cfg.filename))[0])
    )
    if getattr(args, 'amp', False):
        _enable_amp(cfg)
    if getattr(args, 'auto_scale_lr', False):
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ValueError('--auto-scale-lr needs auto_scale_lr = dict(base_batch_size=...) in the config')
        cfg.auto_scale_lr.enable = True
    use_gloo(cfg)
    return cfg


def _enable_amp(cfg: Config) -> None:
    if torch.cuda.is_available():
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    else:
        cfg.optim_wrapper.type = 'mmrkd.AutocastOptimWrapper'
        for name in ('loss_scale', 'dtype', 'use_fsdp'):  # of a wrapper for GPUs, which the config may name
            cfg.optim_wrapper.pop(name, None)


def build_runner(cfg: Config, allow_pickle: bool = False) -> Runner:
    """Builds the runner that a config asks for; a distillation that asks for none gets :class:`mmrkd.Runner`.

    A runner of another kind (plain, FlexibleRunner) is handed what ours does by itself.

    Args:
        cfg: Config of a run; changed in place.
        allow_pickle: Whether the checkpoint that it starts from may run code of its own. Defaults to what the config
            says, or False.

    Raises:
        ValueError: It may not be loaded, see :func:`mmrkd.engine.resume.settle_checkpoint`.
    """
    if is_distillation(cfg):
        cfg.setdefault('runner_type', 'mmrkd.Runner')
        cfg.allow_pickle = allow_pickle or cfg.get('allow_pickle', False)
    if 'mmrkd.Runner' not in type_names(cfg.get('runner_type')):
        complete_config(cfg)
        settle_checkpoint(cfg, allow_pickle or cfg.get('allow_pickle', False))
        use_gloo(cfg)
        join_process_group(cfg.get('launcher', 'none'))
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def join_process_group(launcher: str) -> None:
    """Joins the processes that torch's launcher started, where there is no GPU: mmengine would ask for one."""
    if launcher == 'pytorch' and not torch.cuda.is_available() and not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether an error is torch's: on a GPU it has a class of its own, on the CPU only a text."""
    text = str(error).lower()
    return 'out of memory' in text or "can't allocate memory" in text or 'not enough memory' in text


def _leave_process_group() -> None:
    """Ends the processes of a run together.

    Threads of gloo that are still there when Python takes itself down abort the process ("terminate called without an
    active exception"), after all work is done; so it is left without that.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        if torch.distributed.get_backend() == 'gloo':
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)


def report_errors(main: Callable[[], Any]) -> Callable[[], None]:
    """Ends a tool with the message of an expected error; its traceback goes to the log file, if there is one yet.

    With ``MMRKD_DEBUG`` set, errors are raised as they are.
    """

    @functools.wraps(main)
    def wrapper() -> None:
        try:
            main()
            _leave_process_group()
        except (ValueError, TypeError, KeyError, OSError, ImportError, RuntimeError) as error:
            if os.environ.get('MMRKD_DEBUG') or (isinstance(error, RuntimeError) and not _out_of_memory(error)):
                raise
            log = _log_traceback(error)
            hint = f'(the traceback is in {log})' if log else '(set MMRKD_DEBUG=1 for the traceback)'
            if isinstance(error, RuntimeError):
                sys.exit(f'{error}\n{MEMORY_ADVICE}\n{hint}')
            sys.exit(f'{type(error).__name__}: {error}\n{hint}')

    return wrapper


def _log_traceback(error: Exception) -> Optional[str]:
    """Writes a traceback to the log file of the run and returns the file; None if the run has none yet."""
    logger = MMLogger.get_current_instance()
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            info = (type(error), error, error.__traceback__)
            handler.handle(
                logger.makeRecord(logger.name, logging.ERROR, '', 0, 'The run ends with an error.', (), info)
            )
            return handler.baseFilename
    return None
