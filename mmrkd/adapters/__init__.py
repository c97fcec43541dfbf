"""The only rooms that know mmdet or mmpretrain. Each is imported when a model of its library arrives."""

from importlib import import_module

from torch import nn

from mmrkd.adapters.base import ModelAdapter

_ADAPTERS = {
    'mmdet': ('mmrkd.adapters.detection', 'DetectionAdapter'),
    'mmpretrain': ('mmrkd.adapters.classification', 'ClassificationAdapter'),
}


def build_adapter(model: nn.Module) -> ModelAdapter:
    """Returns the adapter for a model, chosen by the library that its class, or a class above it, comes from.

    Raises:
        TypeError: The model is neither an mmdet detector nor an mmpretrain classifier.
    """
    for base in type(model).__mro__:
        library = base.__module__.split('.')[0]
        if library in _ADAPTERS:
            module, name = _ADAPTERS[library]
            return getattr(import_module(module), name)(model)
    raise TypeError(
        f'no adapter for {type(model).__module__}.{type(model).__name__}: '
        f'expected a model of {" or ".join(_ADAPTERS)}, or a class derived from one'
    )


__all__ = ['ModelAdapter', 'build_adapter']
