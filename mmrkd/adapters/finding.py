"""Finds the adapter that serves a model: the one for the most specific class above it."""

import sys
from collections.abc import Sequence
from typing import Union

from torch import nn

from mmrkd.adapters.base import ModelAdapter
from mmrkd.registry import ADAPTERS
from mmrkd.stack import EXTRAS

Served = Union[type, str]


def build_adapter(model: nn.Module, at: str = 'backbone') -> ModelAdapter:
    """Returns the adapter of a model, see :func:`find_adapter` and :meth:`ModelAdapter.placed_at`."""
    return find_adapter(type(model)).placed_at(at)(model)


def find_adapter(kind: type) -> type[ModelAdapter]:
    """Returns the registered adapter that serves a class of models.

    The classes above it are asked one by one, the most specific first, whether an adapter serves or refuses them. So
    an adapter for a subclass goes before the one for its base, also where the former comes from outside the package:
    it is found once the module that registers it was imported (``custom_imports`` of the config).

    Args:
        kind: Class of the model.

    Raises:
        TypeError: No adapter serves the class, one refuses it, or two serve it and neither is derived from the other.
    """
    ADAPTERS.import_from_location()
    adapters = list(dict.fromkeys(ADAPTERS.module_dict.values()))
    reason = ''
    for base in kind.__mro__:
        serving = [adapter for adapter in adapters if _names(adapter.serves, base)]
        serving = [a for a in serving if not any(b is not a and issubclass(b, a) for b in serving)]
        if len(serving) > 1:
            raise TypeError(
                f'{len(serving)} adapters serve {_full_name(base)}: {[a.__name__ for a in serving]}. Let one of them '
                'serve a more specific class, or derive it from the other.'
            )
        if serving:
            return serving[0]
        refusing = [adapter for adapter in adapters if _names(adapter.refuses, base)]
        if refusing:
            reason = f' ({refusing[0].__name__} refuses {_full_name(base)}: {refusing[0].refuses_because})'
            break
    served = [_full_name(s) for adapter in adapters for s in _sequence(adapter.serves)]
    libraries = sorted({name.split('.')[0] for name in served}, key=lambda name: (name in EXTRAS, name))
    raise TypeError(
        f'no adapter for {_full_name(kind)}{reason}: expected a model of {" or ".join(libraries)}, or a class derived '
        f'from one ({", ".join(served)}). For another, register a subclass of mmrkd.adapters.ModelAdapter with '
        '@mmrkd.registry.ADAPTERS.register_module() and name its class of models in `serves`; custom_imports of the '
        'config imports your file.'
    )


def _names(served: Union[Served, Sequence[Served]], base: type) -> bool:
    """Whether a class is one of those served; of a name that was imported elsewhere, the class itself is compared."""
    return any(one is base or (isinstance(one, str) and _is_called(base, one)) for one in _sequence(served))


def _is_called(base: type, name: str) -> bool:
    if name == _full_name(base):
        return True
    module, _, attribute = name.rpartition('.')
    return getattr(sys.modules.get(module), attribute, None) is base


def _sequence(served: Union[Served, Sequence[Served]]) -> Sequence[Served]:
    return (served,) if isinstance(served, (str, type)) else served


def _full_name(kind: Served) -> str:
    return kind if isinstance(kind, str) else f'{kind.__module__}.{kind.__qualname__}'
