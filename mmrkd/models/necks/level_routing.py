"""Necks without weights that choose levels, and put levels where a head looks for them."""

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor

from mmrkd.registry import MODELS
from mmrkd.structures import Features


@MODELS.register_module()
class SelectLevels(BaseModule):
    """Hands on some of the levels that it is given.

    Args:
        indices: Which, in the order in which they are wanted.
    """

    def __init__(self, indices: Sequence[int]) -> None:
        super().__init__()
        self.indices = tuple(indices)

    def forward(self, feats: Sequence[Tensor]) -> Features:
        """Returns one level for each index."""
        return tuple(feats[index] for index in self.indices)


@MODELS.register_module()
class PlaceLevels(BaseModule):
    """Gives levels the indices under which a head reads them.

    Args:
        indices: Index of each level that it is given.
        num_levels: Number of levels that it returns. Those that no index names are read by nobody; the first level
            stands there.

    Raises:
        ValueError: An index is none of ``0 .. num_levels - 1``.
    """

    def __init__(self, indices: Sequence[int], num_levels: int) -> None:
        super().__init__()
        if not all(0 <= index < num_levels for index in indices):
            raise ValueError(f'indices must be in [0, {num_levels - 1}], found {list(indices)}')
        self.indices, self.num_levels = tuple(indices), num_levels

    def forward(self, feats: Sequence[Tensor]) -> Features:
        """Returns ``num_levels`` levels.

        Raises:
            ValueError: There are fewer or more levels than indices.
        """
        if len(feats) != len(self.indices):
            raise ValueError(f'expected {len(self.indices)} levels, found {len(feats)}')
        placed = dict(zip(self.indices, feats))
        return tuple(placed.get(index, feats[0]) for index in range(self.num_levels))
