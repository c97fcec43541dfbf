"""Forward hooks that live inside one ``with`` block."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def tap_outputs(**modules: nn.Module) -> Iterator[dict[str, Any]]:
    """Records the last output of some modules.

    Nothing outlives the block but the dictionary that it yields: no hook, no reference from the model to a tensor.

    Args:
        **modules: A name for each module to listen to.

    Yields:
        A dictionary that receives ``name -> output`` as the modules are called; one that is not called has no entry.

    Examples:
        >>> with tap_outputs(fc=model.head.fc) as outputs:
        ...     model(images)
        >>> outputs['fc'].shape
    """
    outputs: dict[str, Any] = {}
    handles = []
    try:
        for name, module in modules.items():

            def record(_module: nn.Module, _inputs: Any, output: Any, name: str = name) -> None:
                outputs[name] = output

            handles.append(module.register_forward_hook(record))
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
