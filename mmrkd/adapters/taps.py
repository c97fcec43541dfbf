"""Listens to modules inside one ``with`` block."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import Any, Callable, NamedTuple

from torch import nn

from mmrkd.adapters.reuse import hiding


class Call(NamedTuple):
    """One call of a module: what it returned, and what it was given."""

    output: Any
    args: tuple
    kwargs: dict[str, Any]


@contextmanager
def tap_outputs(
    modules: Mapping[str, nn.Module] = MappingProxyType({}),
    /,
    *,
    every: bool = False,
    inputs: bool = False,
    **named: nn.Module,
) -> Iterator[dict[str, Any]]:
    """Records what some modules return.

    A module that is called and one whose ``forward`` is called past its hooks, as heads of mmseg and mmpose do in their
    ``loss``, are recorded alike, once a call. Nothing outlives the block but the dictionary that it yields: no hook, no
    attribute, no reference from the model to a tensor.

    Args:
        modules: A name for each module to listen to; names that are no identifiers (``'backbone.layer4'``) go here.
        every: Whether all calls are recorded, as a list in their order: a dense head calls its convolutions once for
            each level. Defaults to False: the last call.
        inputs: Whether what a module was given is recorded too; each record is then a :class:`Call`.
        **named: More modules, by name.

    Yields:
        A dictionary that receives ``name -> record`` as the modules are called; one that is not called has no entry.

    Examples:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
        >>> with tap_outputs({'fc': model[0]}) as outputs:
        ...     _ = model(torch.zeros(4, 2))
        >>> outputs['fc'].shape
        torch.Size([4, 3])
    """
    records: dict[str, Any] = {}
    with ExitStack() as stack:
        for name, module in {**modules, **named}.items():

            def record(output: Any, args: tuple, kwargs: dict[str, Any], name: str = name) -> None:
                entry = Call(output, args, kwargs) if inputs else output
                if every:
                    records.setdefault(name, []).append(entry)
                else:
                    records[name] = entry

            stack.enter_context(_listening(module, record))
        yield records


@contextmanager
def _listening(module: nn.Module, record: Callable[[Any, tuple, dict[str, Any]], None]) -> Iterator[None]:
    """Reports each call of a module once: by a hook where it is called, else where its ``forward`` is."""
    called = False  # the module was called and its hook is going to report

    def enter(*_: Any) -> None:
        nonlocal called
        called = True

    def leave(_module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        record(output, args, kwargs)

    with ExitStack() as stack:
        stack.callback(module.register_forward_pre_hook(enter).remove)
        stack.callback(module.register_forward_hook(leave, with_kwargs=True).remove)
        own = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            nonlocal called
            hooked, called = called, False
            output = own(*args, **kwargs)
            if not hooked:
                record(output, args, kwargs)
            return output

        stack.enter_context(hiding(module, 'forward', forward))
        yield
