"""Names of what a model tells apart, as the meta information of its data has them."""

from collections.abc import Mapping
from typing import Any, Optional


def names_in(meta: Mapping[str, Any]) -> Optional[tuple[str, ...]]:
    """Returns the names of the classes, or of the keypoints, in the ``metainfo`` of a dataset; ``None`` without.

    mmpose keeps dictionaries where other libraries have names of classes.
    """
    keypoints = meta.get('keypoint_id2name')
    if keypoints:
        return tuple(keypoints[index] for index in sorted(keypoints))
    names = meta.get('classes', meta.get('CLASSES'))
    return None if names is None or isinstance(names, str) else tuple(names)


def mirror_gap(meta: Mapping[str, Any], other: Mapping[str, Any]) -> Optional[str]:
    """Says which keypoints change places in the mirror in one of two data sets alone; ``None`` if none does."""
    own, others = ([int(index) for index in m.get('flip_indices') or ()] for m in (meta, other))
    if not own or not others or own == others:
        return None
    return f'flip_indices, the keypoints in the mirror, are {own} here and {others} there'
