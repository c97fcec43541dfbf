"""Features come in every nesting of tuples, lists and dictionaries; these two functions take it apart and back."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor


def tensors_in(feats: Any) -> Iterator[Tensor]:
    """Yields the tensors in ``feats``, in order; anything that is no tensor (``None``) is passed over."""
    if isinstance(feats, Tensor):
        yield feats
    elif isinstance(feats, (tuple, list, dict)):
        for part in feats.values() if isinstance(feats, dict) else feats:
            yield from tensors_in(part)


def with_tensors(feats: Any, tensors: Iterator[Tensor]) -> Any:
    """Returns ``feats`` with its tensors exchanged for ``tensors``, one by one in the order of :func:`tensors_in`."""
    if isinstance(feats, Tensor):
        return next(tensors)
    if isinstance(feats, dict):
        return {key: with_tensors(part, tensors) for key, part in feats.items()}
    if isinstance(feats, (tuple, list)):
        return type(feats)(with_tensors(part, tensors) for part in feats)
    return feats
