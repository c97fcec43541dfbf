"""The methods of a distiller by their names."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional, Union

from torch import nn

from mmrkd.models.balance import BalanceRequest
from mmrkd.models.methods.arguments import check_arguments, declared_weights, without_auto
from mmrkd.models.methods.base import DistillMethod
from mmrkd.registry import MODELS

OWN_KEYS = ('name', 'teacher', 'balance')  # of a method's config that are not the constructor's
DEFAULT = 'default'


class MethodDict(nn.ModuleDict):
    """Methods in the order of the config, each under the name that its state, its log lines and its schedules go by.

    The name is ``name`` of the config, or the class name in lower case (``era``); a second method of that name is
    ``era_2``. A method that listens to a list of teachers stands here once for each: ``kd_big``, ``kd_small``. A place
    in the order, ``methods[0]``, finds a method, too.

    Args:
        configs: Configs of methods, or methods.
        teachers: Names of the teachers that there are.

    Raises:
        TypeError: An argument is of another kind than the constructor wants, or there is none of that name.
        ValueError: A name cannot be used or is used twice, or a teacher is missing.
    """

    def __init__(self, configs: Sequence[Union[dict, DistillMethod]] = (), teachers: Sequence[str] = ()) -> None:
        super().__init__()
        for cfg in configs:
            for method in _copies(cfg, list(teachers)):
                method.name = self._free(method.name, automatic=not _given(cfg, 'name'))
                self[method.name] = method

    def __getitem__(self, key: Union[str, int]) -> DistillMethod:
        return list(self.values())[key] if isinstance(key, int) else super().__getitem__(key)

    def _free(self, name: str, automatic: bool) -> str:
        if name not in self:
            return name
        if not automatic:
            raise ValueError(f'two methods are called {name!r}: give each a name= of its own')
        return next(f'{name}_{i}' for i in range(2, len(self) + 3) if f'{name}_{i}' not in self)


def _copies(cfg: Union[dict, DistillMethod], teachers: list[str]) -> Iterator[DistillMethod]:
    """Builds a method, once for each teacher that it listens to."""
    if isinstance(cfg, DistillMethod):
        cfg.name = cfg.name or automatic_name(type(cfg))
        cfg.teacher = _choose(cfg, cfg.teacher, teachers)
        yield cfg
        return
    wanted = cfg.get('teacher', DEFAULT)
    several = isinstance(wanted, (list, tuple))
    for teacher in wanted if several else [wanted]:
        method = build_method(cfg)
        name = _checked(cfg['name']) if _given(cfg, 'name') else automatic_name(type(method))
        method.name = f'{name}_{teacher}' if several else name
        method.teacher = _choose(method, teacher, teachers)
        method.arguments = str(sorted((key, value) for key, value in cfg.items() if key not in ('name', 'teacher')))
        yield method


def build_method(cfg: Mapping[str, Any]) -> DistillMethod:
    """Builds the method of a config, without name and teacher.

    Raises:
        TypeError: An argument is of another kind than the constructor wants, or there is none of that name.
        ValueError: One is out of range.
    """
    kind, request = MODELS.get(cfg['type']) if isinstance(cfg.get('type'), str) else cfg.get('type'), None
    own = {key: value for key, value in cfg.items() if key not in OWN_KEYS}
    if kind is not None:  # otherwise the registry has a better message
        check_arguments(kind, cfg)
        request, own = BalanceRequest.of(cfg, declared_weights(kind)), without_auto(kind, own)
    method = MODELS.build(own)
    method.balance_request = request
    return method


def _given(cfg: Any, key: str) -> bool:
    return isinstance(cfg, Mapping) and cfg.get(key) is not None


def _choose(method: DistillMethod, wanted: Optional[str], teachers: list[str]) -> Optional[str]:
    if wanted in teachers:
        return wanted
    if wanted == DEFAULT and len(teachers) == 1:
        return teachers[0]
    if not method.needs_teacher and wanted in (None, DEFAULT):
        return None
    found = f'the distiller has the teachers {teachers}' if teachers else 'the distiller has none'
    raise ValueError(
        f'{method.name} listens to the teacher {wanted!r}, but {found}. Give teacher=dict(cfg=..., ckpt=...), or '
        'teachers=dict(<name>=dict(cfg=..., ckpt=...)) and teacher=<name> in the method.'
    )


def automatic_name(kind: type) -> str:
    """Returns the class name in lower case, without ``loss``: a name in front of an entry must not make it a loss."""
    return re.sub('loss', '', kind.__name__.lower()) or 'method'


def _checked(name: str) -> str:
    if not isinstance(name, str) or not re.fullmatch(r'\w[\w-]*', name) or hasattr(nn.ModuleDict(), name):
        raise ValueError(
            f'name={name!r}: a method is called by letters, digits, _ and -, and not like {dir(dict)[-9:]}'
        )
    if 'loss' in name:
        raise ValueError(f'name={name!r} contains "loss": in front of an entry it would make each of them a loss')
    return name
