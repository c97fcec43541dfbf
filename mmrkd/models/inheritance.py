"""The student starts from those weights of the teacher that fit it."""

from collections.abc import Mapping, Sequence
from typing import Optional, Union

import torch
from torch import Tensor, nn

MOST_LISTED = 8
STAGED = ('roi_head.bbox_head.', 'roi_head.mask_head.')  # of a cascade these are lists
REGRESSOR = ('fc_reg.weight', 'fc_reg.bias')
SIDES = 4


class InheritanceError(ValueError):
    """A part that the student is to inherit does not exist, or nothing in it fits."""


def inherit_weights(student: nn.Module, teacher: nn.Module, parts: Union[str, Sequence[str]]) -> str:
    """Copies the teacher's weights and buffers into the student wherever name and shape agree.

    Of a cascade the first stage stands for the one second stage that the student has, and a box regressor that knows no
    classes is repeated for each class of the student's (both as in the release of MTPD, arXiv 2308.09105).

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
        sources = {key: _source(key, others) for key in keys}
        values = {key: _for_each_class(key, own[key], others.get(source)) for key, source in sources.items()}
        reasons = {key: _obstacle(own[key], value) for key, value in values.items()}
        fitting = [key for key in keys if reasons[key] is None]
        left_out = [f'{key} ({reason})' for key, reason in reasons.items() if reason is not None]
        if not fitting:
            raise InheritanceError(
                f'init_student={part!r}: nothing in the teacher fits the student. {_listed(left_out)}. '
                f'Choose a part that both models build alike, or leave it out.'
            )
        with torch.no_grad():
            for key in fitting:
                own[key].copy_(values[key])
        staged = sum(sources[key] != key for key in fitting)
        repeated = [key for key in fitting if values[key] is not others[sources[key]]]
        line = f'{part}: {len(fitting)} of {len(keys)} copied' + f', {staged} of the first stage' * bool(staged)
        line += f', repeated for each class: {_listed(repeated)}' * bool(repeated)
        lines.append(line + f'; not: {_listed(left_out)}' * bool(left_out))
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


def _source(key: str, others: Mapping[str, Tensor]) -> str:
    """Returns the name of a weight in the teacher: the same, or in the first of several stages."""
    for head in () if key in others else STAGED:
        staged = key.replace(head, f'{head}0.', 1)
        if key.startswith(head) and staged in others:
            return staged
    return key


def _for_each_class(key: str, own: Tensor, other: Optional[Tensor]) -> Optional[Tensor]:
    """Returns a weight of the teacher, repeated where its regressor has one box for all classes of the student."""
    agnostic = other is not None and key.endswith(REGRESSOR) and other.shape[0] == SIDES != own.shape[0]
    if not agnostic or own.shape[0] % SIDES or own.shape[1:] != other.shape[1:]:
        return other
    return other.repeat(own.shape[0] // SIDES, *[1] * (other.dim() - 1))


def _obstacle(own: Tensor, other: Union[Tensor, None]) -> Union[str, None]:
    if other is None:
        return 'not in the teacher'
    if own.shape != other.shape:
        return f'student {tuple(own.shape)}, teacher {tuple(other.shape)}'
    return None


def _listed(items: Sequence[str]) -> str:
    more = len(items) - MOST_LISTED
    return ', '.join(items[:MOST_LISTED]) + (f', and {more} more' if more > 0 else '')
