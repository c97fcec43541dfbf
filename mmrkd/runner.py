"""The runner of a distillation: mmengine's, with what a distillation needs, whoever starts it."""

import inspect
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Optional, Union

from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner as MMEngineRunner
from torch import nn

from mmrkd.doctor.check_hook import CheckHook, accepted_faults, naming_faults
from mmrkd.engine.launch import join_process_group
from mmrkd.engine.prepare import TESTING, TRAINING, check_data, complete_config, is_distillation, use_gloo
from mmrkd.engine.resume import require_fit, require_safe, settle_checkpoint
from mmrkd.plain_config import written_out
from mmrkd.registry import RUNNERS, drop_empty_scopes

# What the preparation of a run may change or add.
PREPARED = ('custom_hooks', 'default_hooks', 'train_cfg', 'env_cfg', 'model_wrapper_cfg', 'load_from', 'resume')


@RUNNERS.register_module()
class Runner(MMEngineRunner):
    """mmengine's ``Runner``; takes the same configs and arguments and trains plain models just as that does.

    A distillation gets, wherever it is started from (mmdet's or mmpretrain's ``tools/train.py``, with
    ``runner_type='mmrkd.Runner'`` in the config; a notebook; the ``mmrkd`` command):

    - the hooks that keep checkpoints plain and compare class names, and loops and a checkpoint hook that resume exactly
      (:func:`mmrkd.engine.prepare.complete_config`);
    - checkpoints that are read without running what is inside them, the newest intact one for a resume
      (:mod:`mmrkd.engine.resume`), and that must fit in every key where a run is resumed or a model is tested;
    - a diagnosis in the end of why it may not have helped (:class:`mmrkd.engine.hooks.DiagnosisHook`);
    - the pre-flight check before the first iteration (:class:`mmrkd.doctor.CheckHook`), and faults that have names;
    - on a machine without a GPU, processes that talk through gloo.

    Three keys of the config govern this:

    - ``check``: ``dict(ignore=[...])`` names faults to accept, ``False`` leaves the check out.
    - ``diagnosis``: arguments of :class:`mmrkd.engine.hooks.DiagnosisHook`, ``False`` leaves it out.
    - ``allow_pickle``: ``True`` lets checkpoints run code of their own. Only for files that you trust.

    Args:
        *args: Arguments of :class:`mmengine.runner.Runner`.
        **kwargs: The same. ``cfg`` is the whole config; without it, and with parts that are built already, there is
            nothing that the pre-flight check could read, which the log then says.

    Examples:
        >>> import mmrkd
        >>> from mmengine.config import Config
        >>> cfg = Config.fromfile('configs/era/era_resnet18w32_resnet18w8_1xb128-30e_cifar10.py')
        >>> cfg.work_dir = 'work_dirs/era'
        >>> mmrkd.Runner.from_cfg(cfg).train()  # doctest: +SKIP
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = dict(inspect.signature(super().__init__).bind(*args, **kwargs).arguments)
        whole = _own_copy(given.pop('cfg', None)) or _own_copy(given if _is_written(given) else None)
        run = ConfigDict({**whole, **given})
        drop_empty_scopes(whole._cfg_dict)
        drop_empty_scopes(run)
        self.allow_pickle, ignore = bool(run.get('allow_pickle')), accepted_faults(run)
        complete_config(run)
        settle_checkpoint(run, self.allow_pickle)
        use_gloo(run)
        arguments = {name: run[name] for name in (*given, *PREPARED) if name in run and name != 'model_wrapper_cfg'}
        super().__init__(**arguments, cfg=_noted(whole, run, given))
        self.check_hook: Optional[CheckHook] = None
        if ignore is not None and is_distillation(self.cfg):
            self.check_hook = CheckHook(ignore)
            self.register_hook(self.check_hook)
        elif is_distillation(run):
            self.logger.info('no pre-flight check: ' + ('check = False' if whole else 'the runner was given no config'))

    @classmethod
    def from_cfg(cls, cfg: Union[Config, dict]) -> 'Runner':
        """Builds the runner of a config, which is not changed.

        Raises:
            FaultError: It cannot be built, and it is known why.
        """
        with naming_faults(cfg):
            return super().from_cfg(cfg)

    def train(self) -> nn.Module:
        """Trains, after the data is known to be there and the distillation has been examined.

        Raises:
            FaultError: The distillation has faults.
            FileNotFoundError: Data of a plain config is missing.
        """
        with naming_faults(self.cfg, self.check_hook):
            check_data(self.cfg, TRAINING)
            if self._resume and self._load_from is not None:
                require_fit(self.model, self._load_from, self.allow_pickle)
            return super().train()

    def val(self) -> dict:
        """Validates; weights that were to be loaded must fit in every key."""
        self._before_evaluation(('val_dataloader',))
        return super().val()

    def test(self) -> dict:
        """Tests; weights that were to be loaded must fit in every key."""
        self._before_evaluation(TESTING)
        return super().test()

    def _before_evaluation(self, loaders: tuple[str, ...]) -> None:
        check_data(self.cfg, loaders)
        if self._load_from is not None and not self._has_loaded:
            require_fit(self.model, self._load_from, self.allow_pickle)

    def setup_env(self, env_cfg: dict) -> None:
        """Joins the other processes, without a GPU where there is none."""
        join_process_group(self._launcher)
        super().setup_env(env_cfg)

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> dict:
        """Loads a checkpoint that runs no code.

        Raises:
            ValueError: It holds objects that would, and ``allow_pickle`` is not set.
        """
        if filename != self._load_from:  # which was looked at when the runner was made
            require_safe(filename, self.allow_pickle)
        return super().load_checkpoint(filename, *args, **kwargs)


def _own_copy(cfg: Optional[Union[Config, Mapping]]) -> Config:
    return deepcopy(cfg) if isinstance(cfg, Config) else Config(deepcopy(dict(cfg or {})))


def _noted(whole: Config, run: ConfigDict, given: dict) -> Config:
    """Writes what was prepared into the whole config, if there is one, and what a runner reads nowhere else.

    Classes in it are named: mmengine writes it to the work dir, and no Python reads ``<class ...>``.
    """
    for name in PREPARED if whole else ('model_wrapper_cfg',):
        if name in run and (name in whole or run[name] != given.get(name)):
            whole[name] = run[name]
    return Config(written_out(whole)._cfg_dict, cfg_text=whole.text or '\n', filename=whole.filename)


def _is_written(value: Any) -> bool:
    """Whether there is nothing in a value but what can stand in a config file."""
    if isinstance(value, Mapping):
        return all(_is_written(child) for child in value.values())
    if isinstance(value, (list, tuple)):
        return all(_is_written(child) for child in value)
    return value is None or isinstance(value, (str, int, float, bool, type))
