"""How strongly each part of a loss pulls at the student."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Union

import torch
from torch import Tensor


def gradient_norms(terms: Mapping[str, Union[Tensor, list[Tensor]]], parameters: Iterable[Tensor]) -> dict[str, float]:
    """Returns the norm of the gradient on some parameters for each term, or each sum of several, of one graph.

    Each costs a backward pass; the graph is kept. The parameters' gradients are overwritten, and empty in the end.

    Args:
        terms: Name -> scalar with a graph behind it, or a list of them. One without a graph has a norm of 0.
        parameters: Those that the gradient is taken on.
    """
    parameters = list(parameters)
    norms = {}
    for name, value in terms.items():
        total = sum(value) if isinstance(value, list) else value
        norms[name] = 0.0
        if parameters and torch.is_tensor(total) and total.requires_grad:
            _forget(parameters)
            total.backward(retain_graph=True)  # and not autograd.grad, which checkpointed layers refuse
            squares = (float(p.grad.float().square().sum()) for p in parameters if p.grad is not None)
            norms[name] = math.sqrt(sum(squares))
    _forget(parameters)
    return norms


def by_method(terms: Mapping[str, Tensor], methods: Iterable[str]) -> dict[str, list[Tensor]]:
    """Groups the terms of a step by the methods that they belong to; what is left is the student's own.

    Args:
        terms: Losses as a distiller names them, ``<method>.<name>``.
        methods: Names of the methods.
    """
    return {method: [value for key, value in terms.items() if key.startswith(f'{method}.')] for method in methods}


def scalar(value: Any) -> Tensor:
    """Returns what a loss, or a list of them, adds to the total of a step."""
    parts = value if isinstance(value, (list, tuple)) else [value]
    return torch.stack([part.float().mean() for part in parts]).sum()


def _forget(parameters: Iterable[Tensor]) -> None:
    for parameter in parameters:
        parameter.grad = None
