"""A frozen model may compute losses, but what they leave behind in it is taken back."""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Callable

from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

Undo = Callable[[], None]
OWN = set(vars(nn.Module())) | {'_is_init', '_params_init_info', 'init_cfg'}  # bookkeeping of modules
LEFT_ALONE = (nn.Module, Config, ConfigDict, FunctionType, MethodType, BuiltinFunctionType, ModuleType, type)
FOREIGN = ('builtins', 'torch', 'logging', 'numpy', 'threading', 'functools', 'mmengine')


@contextmanager
def unchanged(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Puts back all that is written into some modules inside one ``with`` block: buffers and Python attributes.

    Losses count in buffers (GHM, Seesaw), in lists (DDOD), and in assigners and losses that they retune (Dynamic
    R-CNN). A tensor that was written into is replaced by a copy of what it was, so that a graph that holds it can
    still be differentiated.

    Args:
        modules: Modules, each by itself and not with those inside it.
    """
    undo: list[Undo] = []
    seen: set[int] = set()
    for module in modules:
        undo.extend(_slot(module._buffers, name, buffer) for name, buffer in module._buffers.items())
        if type(module).__module__.split('.')[0] != 'torch':  # those of torch keep all they know in buffers
            undo.extend(_remember_attributes(module, seen))
    try:
        yield
    finally:
        for step in undo:
            step()


def numbers_in(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yields the numbers and tensors that a model keeps in Python attributes, its assigners' and losses' included.

    Args:
        model: A model. Parameters and buffers, which a state dict holds, are not among them.

    Yields:
        A name for each, and the number or tensor, in an order that depends on the model alone.
    """
    seen: set[int] = set()
    for name, module in model.named_modules():
        if type(module).__module__.split('.')[0] != 'torch':
            own = {key: value for key, value in vars(module).items() if key not in OWN}
            yield from _numbers(name, own, seen)


def _numbers(name: str, value: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, (Tensor, bool, int, float)):
        yield name, value
    elif id(value) in seen or isinstance(value, LEFT_ALONE):
        return
    elif isinstance(value, (list, tuple, deque)):
        seen.add(id(value))
        for index, item in enumerate(value):
            yield from _numbers(f'{name}.{index}', item, seen)
    elif isinstance(value, dict):
        for key, item in sorted(value.items(), key=lambda pair: str(pair[0])):
            yield from _numbers(f'{name}.{key}', item, seen)
    elif hasattr(value, '__dict__') and type(value).__module__.split('.')[0] not in FOREIGN:
        seen.add(id(value))
        yield from _numbers(name, vars(value), seen)


def _remember(value: Any, seen: set[int]) -> Iterator[Undo]:
    """How to undo changes inside a value; an attribute that is replaced is the business of its owner."""
    if id(value) in seen or isinstance(value, LEFT_ALONE):
        return
    if isinstance(value, tuple):
        for item in value:
            yield from _remember(item, seen)
    elif isinstance(value, (list, deque, dict, set)):
        seen.add(id(value))
        yield _container(value)
        for key, item in list(value.items()) if isinstance(value, dict) else list(enumerate(value)):
            if isinstance(item, Tensor) and not isinstance(value, set):
                yield _slot(value, key, item)
            else:
                yield from _remember(item, seen)
    elif hasattr(value, '__dict__') and type(value).__module__.split('.')[0] not in FOREIGN:
        yield from _remember_attributes(value, seen)


def _remember_attributes(owner: Any, seen: set[int]) -> Iterator[Undo]:
    if id(owner) in seen:
        return
    seen.add(id(owner))
    attributes = vars(owner)
    names = [name for name in attributes if not (isinstance(owner, nn.Module) and name in OWN)]
    before = {name: attributes[name] for name in names}

    def restore() -> None:
        for name in [n for n in attributes if n not in before and not (isinstance(owner, nn.Module) and n in OWN)]:
            del attributes[name]
        attributes.update({name: value for name, value in before.items() if attributes.get(name) is not value})

    yield restore
    for name, value in before.items():
        if isinstance(value, Tensor):
            yield _slot(attributes, name, value)
        else:
            yield from _remember(value, seen)


def _slot(owner: Any, key: Any, tensor: Any) -> Undo:
    """Remembers the tensor in one place of a container."""
    if not isinstance(tensor, Tensor):
        return lambda: None
    version, saved = None if tensor.is_inference() else tensor._version, tensor.detach().clone()

    def restore() -> None:
        if version is None or tensor._version != version:
            owner[key] = saved
        elif owner[key] is not tensor:
            owner[key] = tensor

    return restore


def _container(container: Any) -> Undo:
    before = container.copy()

    def restore() -> None:
        if isinstance(container, dict):
            same = container.keys() == before.keys() and all(container[k] is v for k, v in before.items())
        else:
            same = len(container) == len(before) and all(a is b for a, b in zip(container, before))
        if not same:
            container.clear()
            container.update(before) if isinstance(container, (dict, set)) else container.extend(before)

    return restore
