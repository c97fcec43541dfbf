"""Data samples: a sequence of them, or (mmyolo) one dictionary of tensors for the whole batch."""

from collections.abc import Sequence
from typing import Any, Union

from mmengine.structures import BaseDataElement

Samples = Union[Sequence, dict]


def copied(samples: Samples) -> Samples:
    """Returns samples that a loss may write into (RTMDet exchanges its masks): tensors are shared, containers not."""
    if isinstance(samples, dict):
        return {key: list(value) if isinstance(value, list) else value for key, value in samples.items()}
    return [_copied(sample) for sample in samples]


def missing_in(samples: Samples, *fields: str) -> list[str]:
    """Returns which of some fields a batch lacks, such as ``'gt_instances.masks'``.

    The dictionary of a batch as a whole keeps them under their last names.
    """
    if isinstance(samples, dict):
        return [field for field in fields if field.rpartition('.')[2] not in samples]
    return [field for field in fields if not all(_has(sample, field) for sample in samples)]


def _has(sample: Any, field: str) -> bool:
    for name in field.split('.'):
        if sample is None or name not in sample:
            return False
        sample = sample.get(name)
    return True


def _copied(sample: Any) -> Any:
    if not isinstance(sample, BaseDataElement):
        return sample
    copy = sample.clone()
    for name, value in sample.items():
        if isinstance(value, BaseDataElement):
            copy.set_field(value.clone(), name)
    return copy
