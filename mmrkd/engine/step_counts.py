"""What a training step does, counted: numbers without noise, the same on any machine."""

import os.path as osp
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Optional

import mmengine
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmrkd.adapters import ModelAdapter
from mmrkd.adapters.taps import tap_outputs
from mmrkd.models import Distiller

PACKAGE = osp.dirname(osp.dirname(osp.abspath(__file__)))
GROUND = tuple(osp.dirname(osp.abspath(package.__file__)) + osp.sep for package in (torch, mmengine))
WAITING = ('_local_scalar_dense', 'nonzero', 'masked_select', 'equal', '_unique2', 'unique_dim', 'unique_consecutive')
"""Operators whose result the host must know before it can go on: on a GPU it waits for the device."""
MASKING = ('index', 'index_put', 'index_put_', '_index_put_impl_')
"""These wait, too, where an index is a mask: they look for its places first."""


class OperatorCounter(TorchDispatchMode):
    """Counts operators, those that wait for the device, and messages between processes, inside one ``with`` block.

    Whose they are the stack tells: the innermost frame that is not torch's or mmengine's lies in mmrkd, or elsewhere.

    Attributes:
        calls: Number of all operators.
        waits: Place in mmrkd (``'models/loss_guard.py:90'``) -> how often it waits for the device.
        other_waits: How often other packages do.
        messages: Place in mmrkd -> how often it makes the processes exchange something.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.other_waits = 0, 0
        self.waits: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: Optional[dict] = None) -> Any:
        """Counts one operator and runs it."""
        self.calls += 1
        if function.namespace == 'c10d':
            place = _place()
            if place is not None:
                self.messages[place] += 1
        elif _waits(function, args, kwargs or {}):
            place = _place()
            if place is None:
                self.other_waits += 1
            else:
                self.waits[place] += 1
        return function(*args, **(kwargs or {}))


@dataclass
class StepCounts:
    """What one step did.

    Attributes:
        student_bodies: Passes of the student's backbone.
        student_heads: Passes of its head.
        teacher_bodies: Passes of the teachers' backbones.
        teacher_heads: Passes of their heads.
        own_waits: How often mmrkd waits for the device.
        waits: How often anything does, the libraries' losses and target assignment included.
        operators: Operators of torch in the forward pass.
        own_messages: How often mmrkd makes the processes exchange something.
    """

    student_bodies: int = 0
    student_heads: int = 0
    teacher_bodies: int = 0
    teacher_heads: int = 0
    own_waits: int = 0
    waits: int = 0
    operators: int = 0
    own_messages: int = 0


def count_step(distiller: Distiller, losses: Callable[[], Any]) -> tuple[StepCounts, OperatorCounter]:
    """Counts one computation of losses.

    Args:
        distiller: Whose models are listened to.
        losses: Computes them.

    Returns:
        The counts, and the counter that knows the places.
    """
    teachers = [teacher.adapter for teacher in distiller.teachers.values()]
    with ExitStack() as stack:
        own = stack.enter_context(tap_outputs(_parts(distiller.adapter), every=True))
        others = [stack.enter_context(tap_outputs(_parts(adapter), every=True)) for adapter in teachers]
        counter = stack.enter_context(OperatorCounter())
        losses()
    counts = StepCounts(
        student_bodies=len(own.get('body', ())),
        student_heads=len(own.get('head', ())),
        teacher_bodies=sum(len(calls.get('body', ())) for calls in others),
        teacher_heads=sum(len(calls.get('head', ())) for calls in others),
        own_waits=sum(counter.waits.values()),
        waits=sum(counter.waits.values()) + counter.other_waits,
        operators=counter.calls,
        own_messages=sum(counter.messages.values()),
    )
    return counts, counter


def _parts(adapter: ModelAdapter) -> dict[str, torch.nn.Module]:
    """What is listened to: the backbone (of models without one, the whole) and the head, where there is one."""
    body = getattr(adapter.model, 'backbone', adapter.model)
    return {'body': body, **({} if adapter.head is None else {'head': adapter.head})}


def _waits(function: Any, args: tuple, kwargs: dict) -> bool:
    name = function.overloadpacket.__name__
    if name in ('_to_copy', 'copy_') and isinstance(args[0], Tensor):
        other = args[1].device if name == 'copy_' else torch.device(kwargs.get('device') or args[0].device)
        return other.type != args[0].device.type and not (kwargs.get('non_blocking') or args[2:3] == (True,))
    if name in MASKING:
        return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    return name in WAITING or name == 'repeat_interleave' and function._overloadname == 'Tensor'


def _place() -> Optional[str]:
    """Where in mmrkd the operator is called; ``None`` if another package calls it."""
    frame = sys._getframe(2)
    while frame is not None:
        path = frame.f_code.co_filename
        if path == __file__:
            return None
        if not path.startswith((*GROUND, '<')):
            inside = path.startswith(PACKAGE + osp.sep)
            return f'{osp.relpath(path, PACKAGE)}:{frame.f_lineno}' if inside else None
        frame = frame.f_back
    return None
