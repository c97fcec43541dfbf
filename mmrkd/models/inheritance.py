"""The student starts from those weights of the teacher that fit it."""

from collections.abc import Sequence
from typing import Union

import torch
from torch import Tensor, nn

MOST_LISTED = 8


class InheritanceError(ValueError):
    """A part that the student is to inherit does not exist, or nothing in it fits."""


def inherit_weights(student: nn.Module, teacher: nn.Module, parts: Union[str, Sequence[str]]) -> str:
    """Copies the teacher's weights and buffers into the student wherever name and shape agree.

    Args:
        student: Is changed in place.
        teacher: Is only read.
        parts: Direct children of both models (``'neck'``, ``'rpn_head'``), as a list or joined by commas. ``'head'``
            stands for all that are named so (``head``; ``bbox_head``, ``rpn_head``, ``roi_head``, ``mask_head``).

    Returns:
        For each part how much was copied, and what was not and why (another shape, not in the teacher).

    Raises:
        InheritanceError: A part is not in the student, or nothing in it fits.
    """
    own, others = student.state_dict(), teacher.state_dict()
    lines = []
    for part in split_parts(parts):
        prefixes = _prefixes(student, part)
        keys = [key for key in own if key.startswith(prefixes)]
        reasons = {key: _obstacle(own[key], others.get(key)) for key in keys}
        fitting = [key for key in keys if reasons[key] is None]
        left_out = [f'{key} ({reason})' for key, reason in reasons.items() if reason is not None]
        if not fitting:
            raise InheritanceError(
                f'init_student={part!r}: nothing in the teacher fits the student. {_listed(left_out)}. '
                f'Choose a part that both models build alike, or leave it out.'
            )
        with torch.no_grad():
            for key in fitting:
                own[key].copy_(others[key])
        lines.append(f'{part}: {len(fitting)} of {len(keys)} copied' + (f'; not: {_listed(left_out)}' * bool(left_out)))
    return '\n'.join(lines)


def split_parts(parts: Union[str, Sequence[str]]) -> list[str]:
    """Returns the names in ``'neck,head'`` or ``['neck', 'head']``."""
    names = parts.split(',') if isinstance(parts, str) else parts
    return [name.strip() for name in names if name.strip()]


def check_parts(student: nn.Module, parts: Union[str, Sequence[str]]) -> None:
    """Raises InheritanceError if the student has no part of one of these names."""
    for part in split_parts(parts):
        _prefixes(student, part)


def _prefixes(model: nn.Module, part: str) -> tuple[str, ...]:
    children = [name for name, child in model.named_children() if child.state_dict()]
    found = tuple(f'{name}.' for name in children if name == part or (part == 'head' and name.endswith('head')))
    if not found:
        raise InheritanceError(
            f'init_student={part!r}: {type(model).__name__} has no such part. Choose among {children}.'
        )
    return found


def _obstacle(own: Tensor, other: Union[Tensor, None]) -> Union[str, None]:
    if other is None:
        return 'not in the teacher'
    if own.shape != other.shape:
        return f'student {tuple(own.shape)}, teacher {tuple(other.shape)}'
    return None


def _listed(items: Sequence[str]) -> str:
    more = len(items) - MOST_LISTED
    return ', '.join(items[:MOST_LISTED]) + (f', and {more} more' if more > 0 else '')
