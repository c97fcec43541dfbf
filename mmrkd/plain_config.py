"""The config of the student alone: what a distillation config was before it named a teacher."""

from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, FunctionType
from typing import Any

from mmengine.config import Config, ConfigDict

from mmrkd.models.teacher import load_model_config
from mmrkd.registry import SCOPE, is_ours, type_name

OWN_HOOKS = ('mmrkd.SplitCheckpointHook', 'mmrkd.MergeCheckpointHook', 'mmrkd.ClassCheckHook', 'mmrkd.PhaseHook')
"""What every distillation run needs; see :func:`mmrkd.engine.prepare.prepare_config`."""
DIAGNOSIS_HOOK = 'mmrkd.DiagnosisHook'
"""What it gets unless its config says ``diagnosis = False``."""
RESUMABLE = {
    'CheckpointHook': 'mmrkd.ResumableCheckpointHook',
    'EpochBasedTrainLoop': 'mmrkd.ResumableEpochLoop',
    'IterBasedTrainLoop': 'mmrkd.ResumableIterLoop',
}
"""mmengine's name -> ours, which does the same and can be interrupted."""
STOCK = {
    **{own: name for name, own in RESUMABLE.items()},
    'mmrkd.VariantValLoop': 'ValLoop',
    'mmrkd.VariantTestLoop': 'TestLoop',
    'mmrkd.AutocastOptimWrapper': 'OptimWrapper',
    'mmrkd.FSDPStrategy': 'FSDPStrategy',
}
"""Ours -> what mmengine has in its place."""
OWN_ARGUMENTS = ('on_write_error', 'on_other_teacher', 'variants', 'dtype')
"""Arguments of types of ours, which mmengine's do not take."""
OF_THE_RUN = ('load_from', 'resume', 'check', 'diagnosis', 'allow_pickle')
"""Settings of one run of a distillation: where it started from, what it accepted, and how it was looked at."""


def plain_config(cfg: Config) -> Config:
    """Returns the config of the student alone: the model it was before, no trace of mmrkd.

    Types that a pure-Python config imports are written out by name, so that the result can be dumped and read again.
    Only a student with modules of mmrkd needs it, and gets ``custom_imports``.

    Args:
        cfg: A distillation config. Not changed.
    """
    plain = written_out(cfg)
    plain.model = ConfigDict(_named(load_model_config(plain.model.student).to_dict()))
    for name in OF_THE_RUN:
        plain._cfg_dict.pop(name, None)
    if is_ours(plain.get('runner_type')):
        plain._cfg_dict.pop('runner_type')
    hooks = zip(plain.get('custom_hooks') or [], cfg.get('custom_hooks') or [])
    plain.custom_hooks = [hook for hook, class_known in hooks if not is_ours(class_known)]
    for part in ('train_cfg', 'val_cfg', 'test_cfg', 'strategy', 'optim_wrapper'):
        _use_stock(plain.get(part))
    _use_stock_hooks(plain.get('default_hooks') or {})
    return importing_mmrkd(plain, any(is_ours(part) for part in _dicts(plain._cfg_dict)))


def written_out(cfg: Config) -> Config:
    """Returns a copy of a config in which every class and function is named by its full path.

    mmengine writes a class that stands in a config as ``<class ...>``, which no Python reads.
    """
    return Config(_named(cfg.to_dict() if isinstance(cfg, Config) else cfg))


def importing_mmrkd(cfg: Config, needed: bool = True) -> Config:
    """Adds mmrkd to the ``custom_imports`` of a config, or takes it out."""
    imports = dict(cfg.get('custom_imports') or {})
    listed = imports.get('imports') or []
    names = [name for name in ([listed] if isinstance(listed, str) else listed) if name.split('.')[0] != 'mmrkd']
    if needed:
        cfg.custom_imports = {**imports, 'imports': [*names, 'mmrkd'], 'allow_failed_imports': False}
    elif names:
        cfg.custom_imports = {**imports, 'imports': names}
    else:
        cfg._cfg_dict.pop('custom_imports', None)
    return cfg


def _use_stock(part: Any) -> None:
    """Puts mmengine's type in the place of ours, also inside: several optimisers have a wrapper each."""
    if not isinstance(part, dict):
        return
    stock = STOCK.get(type_name(part))
    if stock is not None:
        part['type'] = stock
        for name in [*OWN_ARGUMENTS, *(['_scope_'] if part.get('_scope_') == SCOPE else [])]:
            part.pop(name, None)
    for child in part.values():
        _use_stock(child)


def _use_stock_hooks(hooks: ConfigDict) -> None:
    for name in list(hooks):
        _use_stock(hooks[name])
        if is_ours(hooks[name]):
            hooks.pop(name)


def _named(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _named(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_named(child) for child in value)
    if isinstance(value, (type, FunctionType, BuiltinFunctionType)):
        return f'{value.__module__}.{value.__qualname__}'
    return value


def _dicts(value: Any) -> Iterator[dict]:
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        yield from _dicts(child)
