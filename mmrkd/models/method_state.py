"""What a checkpoint holds of the methods, and how it finds its way back to them."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from torch import Tensor

from mmrkd.models.methods.base import DistillMethod
from mmrkd.models.methods.method_dict import MethodDict
from mmrkd.models.state_names import METHODS_PREFIX

RENAMED = {'projections.': 'projection.layers.', 'lifts.': 'projection.layers.'}
"""Parts of methods -> what they are called now, in checkpoints that know methods by their place in the list."""


def describe_methods(methods: MethodDict) -> dict[str, dict[str, Any]]:
    """Returns for each method by name what tells it from others: class, teacher, arguments."""
    return {
        name: dict(type=type(method).__name__, teacher=method.teacher, arguments=method.arguments)
        for name, method in methods.items()
    }


def present_names(known: Mapping[str, dict], methods: MethodDict) -> dict[str, str]:
    """Returns saved name -> present name.

    They are the same, except where several methods of one class were only numbered and now stand in another order:
    then their arguments tell which is which.

    Args:
        known: What :func:`describe_methods` said when the checkpoint was saved.
        methods: The methods of the distiller.
    """
    names = {name: name for name in known}
    now = describe_methods(methods)
    for kind in {entry['type'] for entry in known.values()}:
        before = {n: str(e) for n, e in known.items() if e['type'] == kind and _numbered(n, e['type'])}
        after = {n: str(e) for n, e in now.items() if e['type'] == kind and _numbered(n, e['type'])}
        if before != after and Counter(before.values()) == Counter(after.values()) == Counter(set(before.values())):
            place = {entry: name for name, entry in after.items()}
            names.update({name: place[entry] for name, entry in before.items()})
    return names


def restored_state(
    saved: Mapping[str, Tensor], methods: MethodDict, known: Mapping[str, dict], strict: bool = True
) -> dict[str, Tensor]:
    """Returns the saved weights of those methods that there are, under their present names, and names the others.

    Args:
        saved: ``methods.<name>.<key>`` -> tensor; in checkpoints of before, a place in the list in the place of a name.
        methods: The methods of the distiller. What fits is loaded into them while it is checked.
        known: What :func:`describe_methods` said when it was saved; empty in checkpoints of before.
        strict: Whether keys and shapes are checked; where FSDP shards them they cannot be.

    Raises:
        ValueError: The state of a method does not fit the one of that name.
    """
    saved = {key[len(METHODS_PREFIX) :]: value for key, value in saved.items()}
    if not known and any(re.match(r'\d+\.', key) for key in saved):
        saved = _by_name(saved, methods)
    names = present_names(known, methods)
    by_method: dict[str, dict[str, Tensor]] = {names[name]: {} for name in known}
    for key, value in saved.items():
        name, _, own = key.partition('.')
        by_method.setdefault(names.get(name, name), {})[own] = value
    left = sorted(set(by_method) - set(methods))
    fresh = [name for name, method in methods.items() if name not in by_method and method.state_dict()]
    if left:
        print_log(f'left over in the checkpoint: the methods {left}, which this distillation does not have', 'current')
    if fresh:
        print_log(f'not in the checkpoint: the methods {fresh} start from their initial weights', 'current')
    for name in [name for name in methods if name in by_method and strict]:
        saved_as = next((known[old] for old, new in names.items() if new == name), {})
        _require_fit(name, methods[name], by_method[name], saved_as.get('type'))
    return {f'{METHODS_PREFIX}{n}.{key}': value for n in methods for key, value in by_method.get(n, {}).items()}


def _numbered(name: str, kind: str) -> bool:
    return re.fullmatch(re.escape(kind.lower()) + r'(_\d+)?', name) is not None


def _by_name(saved: dict[str, Tensor], methods: MethodDict) -> dict[str, Tensor]:
    print_log('an older checkpoint: its methods are known by their place in the list and read in that order', 'current')
    names, renamed = dict(enumerate(methods)), {}
    for key, value in saved.items():
        index, _, own = key.partition('.')
        if int(index) not in names:
            raise ValueError(
                f'the checkpoint has the state of a method number {index} (methods.{key}), and the distillation has '
                f'only {len(names)} methods: {list(methods)}. Give the list of methods that it was trained with.'
            )
        for old, new in RENAMED.items():
            own = new + own[len(old) :] if own.startswith(old) else own
        renamed[f'{names[int(index)]}.{own}'] = value
    return renamed


def _require_fit(name: str, method: DistillMethod, saved: Mapping[str, Tensor], kind: Any) -> None:
    if kind not in (None, type(method).__name__):
        raise ValueError(
            f'the checkpoint has a {kind} called {name!r}, and the distillation a {type(method).__name__} of that '
            'name. Give one of them another name=.'
        )
    own = method.state_dict()
    shapes = [
        f'{key}: expected {tuple(own[key].shape)}, found {tuple(saved[key].shape)}'
        for key in own
        if key in saved and own[key].shape != saved[key].shape
    ]
    # Loading lets modules convert what older versions of them saved.
    missing, unexpected = ((), ()) if shapes else method.load_state_dict(dict(saved), strict=False)
    differences = (('missing keys', missing), ('unexpected keys', unexpected), ('other shapes', shapes))
    problems = [f'{len(keys)} {what} ({", ".join(list(keys)[:4])})' for what, keys in differences if keys]
    if problems:
        raise ValueError(
            f'the state of the method {name!r} in the checkpoint does not fit: {"; ".join(problems)}. Give it the '
            'arguments that it was trained with, or another name=, with which it starts afresh.'
        )
