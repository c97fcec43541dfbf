"""Cuts a model in two along its own forward pass: a lower part that is run elsewhere and an upper part that runs here.

No family has code of its own here. One blank image tells in which order a model calls its modules; those that are done
when the upper part begins are replaced in a copy by stand-ins that hand out what the originals returned elsewhere. The
copy's own forward code then does everything else: norms, selection of stages, pooling, neck, head.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import count
from math import inf
from typing import Any, Optional

import torch
from torch import Tensor, nn

from mmrkd.adapters.base import ModelAdapter

BODY = ('backbone.', 'neck.')  # what a model runs to compute features
HEADS = ('decode_head', 'head')  # of segmentors and pose estimators, a part of which may belong to the features


class Handout(nn.Module):
    """Stands in the place of a module whose output is already there.

    Without a value it hands its first input on: the outputs of most lower modules are read by lower modules alone.

    Args:
        **children: Modules inside the one that is replaced which others call directly (Swin's ``stage.downsample``).
    """

    def __init__(self, **children: nn.Module) -> None:
        super().__init__()
        self.value: Any = None
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, *inputs: Any, **_kwargs: Any) -> Any:
        """Returns the value, or the first input."""
        return inputs[0] if self.value is None else self.value


@dataclass(frozen=True)
class Split:
    """Where a model is cut.

    Attributes:
        lower: Names of the modules below the cut, none inside another, in the order of the forward pass.
        kept: Name in ``lower`` -> children of it that the model calls past it.
        taps: Those in ``lower`` whose outputs the upper part reads.
        unused: Names of parameters outside ``lower`` that only the lower part needs (a position embedding).
    """

    lower: tuple[str, ...]
    kept: dict[str, tuple[str, ...]]
    taps: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def find_split(adapter: ModelAdapter, first: Optional[str]) -> Split:
    """Finds out what lies below a cut, and proves on one random image that the upper part alone computes the same.

    Args:
        adapter: Adapter of the model. The model is not changed.
        first: Where the upper part begins. The name of a module, in the backbone (``'layer4'``) or in the model
            (``'backbone.layer4'``); ``'neck'``: behind the neck, so that only the head is above; ``'input'``: with the
            image, so that nothing is below; ``None``: with the last module that halves the resolution of the backbone,
            which is where its last stage begins (ours; ResNet: ``'layer4'``).

    Raises:
        KeyError: There is no such module.
        ValueError: The model cannot be cut there.
    """
    calls = trace(adapter)
    name, cut = _locate(adapter, calls, first)
    ends = {call.name: max(c.end for c in calls if c.name == call.name) for call in calls}
    below = {name for name, end in ends.items() if end < cut}
    tops = [call for call in calls if call.name in below and (call.caller is None or call.caller.name not in below)]
    lower = tuple(dict.fromkeys(call.name for call in tops))
    past = dict.fromkeys(call.name for call in calls if call.caller is None or call.caller.name not in below)
    kept = {top: tuple(n[len(top) + 1 :] for n in past if n.rpartition('.')[0] == top) for top in lower}
    split = Split(lower, {top: names for top, names in kept.items() if names})
    try:
        return _prove(adapter, split)
    except Exception as error:
        raise ValueError(
            f'{type(adapter.model).__name__} cannot be cut at {name!r}: the part above it does not run alone '
            f'({type(error).__name__}: {error}). Choose another split, or split="input" for a bridge that is the whole '
            'model.'
        ) from error


def cut_model(model: nn.Module, split: Split) -> nn.Module:
    """Replaces what is below the cut by stand-ins. Changes the model, and returns it."""
    for name in sorted(split.lower, key=len):
        parent, _, child = name.rpartition('.')
        children = {kept: model.get_submodule(f'{name}.{kept}') for kept in split.kept.get(name, ())}
        setattr(model.get_submodule(parent), child, Handout(**children))
    for name in split.unused:
        parent, _, child = name.rpartition('.')
        owner = model.get_submodule(parent)
        value = owner._parameters.pop(child).detach()
        owner.register_buffer(child, value, persistent=False)
    return model


@contextmanager
def handing(model: nn.Module, outputs: dict[str, Any]) -> Iterator[None]:
    """Lets the stand-ins of a cut model hand out the given outputs, inside one ``with`` block."""
    handouts = [(model.get_submodule(name), value) for name, value in outputs.items()]
    for handout, value in handouts:
        handout.value = value
    try:
        yield
    finally:
        for handout, _ in handouts:
            handout.value = None


@dataclass
class _Call:
    name: str
    caller: Optional['_Call']
    start: int
    end: float = inf
    cells: Optional[int] = None  # positions of the feature that it returned
    weighted: bool = False  # a norm or an activation begins no stage


def trace(adapter: ModelAdapter) -> list[_Call]:
    """Every call of a module in one feature pass, in order of their beginnings."""
    calls: list[_Call] = []
    stack: list[_Call] = []
    clock = count()
    handles = []

    image = adapter.trial_image()

    def listen(name: str, module: nn.Module) -> None:
        def enter(*_args: Any) -> None:
            calls.append(_Call(name, stack[-1] if stack else None, next(clock)))
            stack.append(calls[-1])

        def leave(_module: nn.Module, _inputs: Any, output: Any) -> None:
            call = stack.pop()
            call.end, call.cells = next(clock), _cells(output)
            call.weighted = any(p.dim() > 1 for p in module.parameters())

        handles.extend([module.register_forward_pre_hook(enter), module.register_forward_hook(leave)])

    try:
        for name, module in adapter.model.named_modules():
            if name:
                listen(name, module)
        with adapter.evaluating():
            adapter.extract(image)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _locate(adapter: ModelAdapter, calls: Sequence[_Call], first: Optional[str]) -> tuple[str, float]:
    """Returns the name and the time of the cut."""
    if first == 'input':
        return first, -1
    if first == 'neck':  # only features behind the neck take a part of the head to compute
        return first, min((call.start for call in calls if call.name.startswith(HEADS)), default=inf)
    if first is None:
        first = _last_stage(adapter, calls)
    called = {call.name: call.start for call in reversed(calls)}
    for name in (f'backbone.{first}', first):
        if name in called:
            return name, called[name]
    names = dict(adapter.model.named_modules())
    with adapter.tapped([first if first in names else f'backbone.{first}']):  # suggests names that are there
        raise ValueError(f'{first!r} cannot begin the upper part: the model never calls it while it computes features')


def _last_stage(adapter: ModelAdapter, calls: Sequence[_Call]) -> str:
    outer = [c for c in calls if c.cells and c.weighted and c.caller is not None and c.caller.name == 'backbone']
    drops = [later for before, later in zip(outer, outer[1:]) if later.cells < before.cells]
    if not drops:
        raise ValueError(
            f'{type(adapter.model.backbone).__name__} has no stage of lower resolution that could begin the upper '
            f'part. Name a module with split=, one of {[call.name.partition(".")[2] for call in outer]}'
        )
    return drops[-1].name


def _prove(adapter: ModelAdapter, split: Split) -> Split:
    """Completes the split with what the upper part reads, and compares its features with those of the whole model."""
    image = adapter.trial_image()
    image = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).to(image)
    with adapter.evaluating(), adapter.tapped(split.lower) as outputs:
        expected = adapter.features(adapter.extract(image))
    split = _complete(adapter, split, image, outputs)
    upper = type(adapter)(cut_model(deepcopy(adapter.model), split))
    with upper.evaluating(), handing(upper.model, {name: outputs[name] for name in split.taps}):
        found = upper.features(upper.extract(image))
    if len(found) != len(expected) or not all(torch.equal(a, b) for a, b in zip(found, expected)):
        raise ValueError('it computes other features than the whole model')
    return split


def _complete(adapter: ModelAdapter, split: Split, image: Tensor, outputs: dict[str, Any]) -> Split:
    """Asks the gradients of the upper part which outputs of the lower part, and which parameters, it uses."""
    upper = type(adapter)(cut_model(deepcopy(adapter.model), split))
    parameters = [(n, p) for n, p in upper.model.named_parameters() if n.startswith(BODY)]
    leaves = [(n, v.detach().requires_grad_()) for n, v in outputs.items() if isinstance(v, Tensor)]
    handed = {**outputs, **{name: leaf.clone() for name, leaf in leaves}}  # a clone may be changed in place
    with upper.evaluating(), torch.enable_grad(), handing(upper.model, handed):
        upper.model.requires_grad_(True)  # only now: backbones with frozen stages freeze them in eval()
        total = sum(feature.square().sum() for feature in upper.features(upper.extract(image)))
    sources = [*leaves, *parameters]
    gradients = torch.autograd.grad(total, [tensor for _, tensor in sources], allow_unused=True) if sources else ()
    idle = {name for (name, _), gradient in zip(sources, gradients) if gradient is None}
    if 'neck' in split.lower:
        idle.add('backbone')  # its tuple of levels has no gradient to ask for, and is read by the neck alone
    taps = tuple(name for name in split.lower if name not in idle)
    return replace(split, taps=taps, unused=tuple(name for name, _ in parameters if name in idle))


def _cells(output: Any) -> Optional[int]:
    """Number of positions of a feature: of a map ``(N, C, H, W)`` or of tokens ``(N, L, C)``."""
    while isinstance(output, (tuple, list)) and output:
        output = output[0]
    if not isinstance(output, Tensor) or output.dim() not in (3, 4):
        return None
    return output.shape[1] if output.dim() == 3 else output.shape[2] * output.shape[3]
