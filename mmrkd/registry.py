"""Registries of mmrkd: children of mmengine's, so that ``type='mmrkd.ERA'`` is found from any OpenMMLab config."""

from collections.abc import Mapping
from typing import Any

from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import RUNNERS as MMENGINE_RUNNERS
from mmengine.registry import STRATEGIES as MMENGINE_STRATEGIES
from mmengine.registry import Registry

from mmrkd.stack import EXTRAS, is_fork

SCOPE = 'mmrkd'
# mmengine's list of the packages whose configs may be named `<package>::<file>`, in `_base_` and elsewhere.
MODULE2PACKAGE.setdefault(SCOPE, SCOPE)
MODULE2PACKAGE.update({name: name for name in EXTRAS if is_fork(name)})

MODELS = Registry('model', parent=MMENGINE_MODELS, scope=SCOPE, locations=['mmrkd.models'])
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope=SCOPE, locations=['mmrkd.engine.hooks'])
LOOPS = Registry('loop', parent=MMENGINE_LOOPS, scope=SCOPE, locations=['mmrkd.engine.loops'])
OPTIM_WRAPPERS = Registry(
    'optim wrapper', parent=MMENGINE_OPTIM_WRAPPERS, scope=SCOPE, locations=['mmrkd.engine.optim']
)
STRATEGIES = Registry('strategy', parent=MMENGINE_STRATEGIES, scope=SCOPE, locations=['mmrkd.engine.strategies'])
ADAPTER_ROOMS = ('detection', 'classification', 'retrieval', 'whole_classification', 'segmentation', 'pose')
ADAPTERS = Registry(
    'adapter',
    scope=SCOPE,
    locations=[f'mmrkd.adapters.{room}' for room in ADAPTER_ROOMS],
)
RUNNERS = Registry('runner', parent=MMENGINE_RUNNERS, scope=SCOPE, locations=['mmrkd.runner'])
ALL = (MODELS, HOOKS, LOOPS, OPTIM_WRAPPERS, STRATEGIES, RUNNERS)


def type_name(part: Any) -> str:
    """Returns the one name of a type that a config may write in many ways.

    A config may name a class by its registered name, with its scope in front or beside it (``_scope_``), by its full
    path, as configs in pure Python do when they are written out, or give the class itself. Compared as they are, two
    names of one class differ, and a hook that is there is added once more.

    Args:
        part: A part of a config (``dict(type=...)``), what stands in its ``type``, or an object that was built.

    Returns:
        ``'mmrkd.ERA'`` for what is ours, a bare name (``'CheckpointHook'``) for what is mmengine's or is looked for
        by its name alone, ``'<package>.<name>'`` for everything else; ``''`` if there is no type.
    """
    scope = None
    if isinstance(part, Mapping):
        scope, part = part.get('_scope_'), part.get('type')
    if part is None:
        return ''
    if not isinstance(part, str):
        part = part if hasattr(part, '__qualname__') else type(part)
        part = f'{part.__module__}.{part.__qualname__}'
    *path, name = part.split('.')
    scope = path[0] if path else scope
    if scope == SCOPE and (path or _is_registered(name)):
        return f'{SCOPE}.{name}'
    return f'{scope}.{name}' if path and scope != 'mmengine' else name


def type_names(part: Any) -> tuple[str, ...]:
    """Returns what :func:`type_name` does and, where the class itself is known, the names of its bases behind it."""
    written = part.get('type') if isinstance(part, Mapping) else part
    if written is None or isinstance(written, str):
        return (type_name(part),)
    return tuple(type_name(base) for base in (written if isinstance(written, type) else type(written)).__mro__)


def is_ours(part: Any) -> bool:
    """Whether a part of a config, or an object, is of a type of mmrkd, or of one derived from it."""
    return any(name.startswith(f'{SCOPE}.') for name in type_names(part))


def drop_empty_scopes(node: Any) -> None:
    """Takes ``_scope_='mmrkd'`` out of a config, in place, wherever it names nothing of ours.

    mmengine writes the package of a base (``_base_ = 'mmrkd::era/...'``) into what it inherits, so that bare names are
    looked for there. Those in our configs are names of the library that the config is for, its default scope.
    """
    if isinstance(node, dict):
        if node.get('_scope_') == SCOPE and not (isinstance(node.get('type'), str) and _is_registered(node['type'])):
            node.pop('_scope_')
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ():
        drop_empty_scopes(child)


def _is_registered(name: str) -> bool:
    """Whether ``_scope_`` finds a name with us; if not, it is looked for with mmengine."""
    for registry in ALL:
        registry.import_from_location()
    return any(name in registry.module_dict for registry in ALL)
