"""Are the arguments in a config of the kind that a constructor wants? Asked before anything is built."""

import collections.abc
import difflib
import inspect
import numbers
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any, Union

from mmrkd.models.balance import is_auto

OF_THE_CONFIG = ('type', '_scope_')
OF_EVERY_METHOD = ('name', 'teacher', 'teachers', 'balance')
UNIONS = (Union, getattr(types, 'UnionType', Union))  # Python 3.9 has no X | Y


def check_arguments(cls: type, cfg: Mapping[str, Any], shared: Collection[str] = OF_EVERY_METHOD) -> None:
    """Compares the arguments in a config with the signature of the constructor.

    A text in the place of a number is found here and not in the middle of the first step. What has no annotation, or
    one that says nothing about a value of a config (a class, a callable), passes; so does the default itself. A number
    may be a ``float``; a ``bool`` is no number. A weight that a method declares (``weights``) may be ``'auto'``.

    Args:
        cls: The class that the config is of: a method, the distiller, the teacher.
        cfg: Its config.
        shared: Names that are legal beside those of the constructor. Defaults to what every method may have.

    Raises:
        TypeError: A name that the constructor does not have, with the nearest one that it has, or a value of another
            kind. All of them are named.
    """
    parameters, takes_more = _parameters(cls)
    wrong = []
    for name, value in cfg.items():
        if name in OF_THE_CONFIG or (is_auto(value) and name in parameters and name in declared_weights(cls)):
            continue
        if name in parameters:
            kind, default = parameters[name]
            if value is not default and not _fits(value, kind):
                wrong.append(f'{name}={value!r}: expected {described(kind)}, found {_found(value)}')
        elif not takes_more and name not in shared:
            wrong.append(f'there is no argument {name!r}. {_suggestion(name, [*parameters, *shared])}')
    if wrong:
        raise TypeError(f'{cls.__name__}: ' + '; '.join(wrong))


def declared_weights(cls: type) -> tuple[str, ...]:
    """Returns the names of the weights that a class of methods declares; of any other class there are none."""
    weights = getattr(cls, 'weights', None)
    return tuple(weights) if isinstance(weights, Mapping) else ()


def without_auto(cls: type, cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config with a number in the place of each weight that is ``'auto'``: its default, or 1 without one.

    Args:
        cls: The class that it is of.
        cfg: Its config.
    """
    parameters, _ = _parameters(cls)
    weights = [name for name in declared_weights(cls) if is_auto(cfg.get(name))]
    defaults = {name: parameters.get(name, (None, None))[1] for name in weights}
    return {**cfg, **{name: d if _fits(d, float) and d != 0 else 1.0 for name, d in defaults.items()}}


def described(kind: Any) -> str:
    """Returns an annotation in words: ``'a number or None'``."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in UNIONS:
        return ' or '.join(dict.fromkeys(described(argument) for argument in arguments))
    if origin is typing.Literal:
        return f'one of {arguments}'
    names = {float: 'a number', int: 'a whole number', bool: 'True or False', str: 'a text', type(None): 'None'}
    if kind in names:
        return names[kind]
    if _is_mapping(origin or kind):
        return 'a dict'
    if _is_sequence(origin or kind):
        inner = [described(argument) for argument in arguments if argument is not Ellipsis]
        return f'a list, each {" and ".join(dict.fromkeys(inner))}' if inner else 'a list'
    return getattr(kind, '__name__', str(kind))


def _parameters(cls: type) -> tuple[dict[str, tuple[Any, Any]], bool]:
    """Returns ``name -> (annotation, default)``, and whether a constructor takes names that none of them declares."""
    found: dict[str, tuple[Any, Any]] = {}
    for base in cls.__mro__:
        if '__init__' not in vars(base):
            continue
        hints, takes_more = _hints(base.__init__), False
        for name, parameter in list(inspect.signature(base.__init__).parameters.items())[1:]:
            if parameter.kind is parameter.VAR_KEYWORD:
                takes_more = True
            elif parameter.kind is not parameter.VAR_POSITIONAL:
                found.setdefault(name, (hints.get(name, Any), parameter.default))
        if not takes_more:  # otherwise the rest goes to the constructor of a base, as far as one can tell
            return found, False
    return found, True


def _hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):  # a name that only a type checker imports: nothing is known
        return {}


def _fits(value: Any, kind: Any) -> bool:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in UNIONS:
        return any(_fits(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return value in arguments
    if kind in (float, int):
        return isinstance(value, numbers.Real if kind is float else numbers.Integral) and not isinstance(value, bool)
    if kind in (bool, str, type(None)):
        return isinstance(value, kind)
    if _is_mapping(origin or kind):
        return isinstance(value, Mapping)
    if _is_sequence(origin or kind):
        return _fits_sequence(value, origin or kind, arguments)
    return True


def _fits_sequence(value: Any, kind: type, arguments: tuple) -> bool:
    """Configs write lists where a signature says tuple, and the other way round."""
    if isinstance(value, (str, bytes)) or not isinstance(value, collections.abc.Sequence):
        return False
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        return len(value) == len(arguments) and all(map(_fits, value, arguments))
    return not arguments or all(_fits(element, arguments[0]) for element in value)


def _is_mapping(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Mapping)


def _is_sequence(kind: Any) -> bool:
    return kind in (list, tuple, collections.abc.Sequence, collections.abc.MutableSequence)


def _found(value: Any) -> str:
    if not isinstance(value, str):
        return f'a {type(value).__name__}'
    try:
        float(value)
    except ValueError:
        return 'a text'
    return 'a text: write the number without quotes'


def _suggestion(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f'Did you mean {near[0]!r}?' if near else f'There are: {", ".join(sorted(names))}.'
