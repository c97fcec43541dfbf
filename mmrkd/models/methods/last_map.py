"""The last map of a backbone, and what a cell of it stands for."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mmrkd.adapters import ModelAdapter


def last_map(output: Any) -> Any:
    """Returns the last of the tensors that a module gives, mostly its coarsest map."""
    while isinstance(output, (tuple, list)) and output:
        output = output[-1]
    return output


def map_strides(what: str, adapter: ModelAdapter, names: Sequence[str]) -> list[tuple[int, int]]:
    """Returns channels and stride of the (last) map that each module of a model gives for a blank image.

    Args:
        what: Who asks, for the message.
        adapter: Adapter of the model.
        names: Names of modules.

    Raises:
        ValueError: One gives no map.
    """
    taps = adapter.dry_run_taps(names)
    maps = {name: last_map(taps.get(name)) for name in names}
    wrong = [name for name, value in maps.items() if not isinstance(value, Tensor) or value.dim() != 4]
    if wrong:
        raise ValueError(
            f'{what} compares maps (N, C, H, W), but {wrong} of {type(adapter.model).__name__} give none. For a '
            "transformer set its out_type to 'featmap'."
        )
    return [(value.shape[1], round(adapter.dry_size / value.shape[-1])) for value in maps.values()]
