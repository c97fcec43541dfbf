"""The two branches of a dense head between their convolutions: what is there, and going on from there."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Callable

from torch import Tensor, nn

from mmrkd.adapters.base import ModelAdapter
from mmrkd.adapters.reuse import hiding

BRANCHES = ('cls_convs', 'reg_convs')


def branch_taps(adapter: ModelAdapter, layer: int) -> dict[str, str]:
    """Returns the module of each branch whose output is that of a convolution before its activation.

    Args:
        adapter: Adapter of the model.
        layer: Which convolution, counted from 1.

    Returns:
        Branch -> name in the model: of the convolution's norm if it has one, else of itself.

    Raises:
        ValueError: The head has no such branches, or they are too short.
    """
    name = next(name for name, module in adapter.model.named_modules() if module is adapter.head)
    taps = {}
    for branch in BRANCHES:
        conv = _convs(adapter.head, branch, layer)[layer - 1]
        taps[branch] = f'{name}.{branch}.{layer - 1}.{conv.norm_name if conv.with_norm else "conv"}'
    return taps


def branch_widths(adapter: ModelAdapter, layer: int) -> dict[str, int]:
    """Returns the channels behind such a convolution of each branch."""
    return {branch: _convs(adapter.head, branch, layer)[layer - 1].out_channels for branch in BRANCHES}


@contextmanager
def resumed(head: nn.Module, layer: int, maps: Mapping[str, Sequence[Tensor]]) -> Iterator[None]:
    """Makes a head go on from maps behind a convolution, whatever features it is called with, inside one ``with``.

    The convolutions before hand on what they get, and the ``layer``-th hands out the activation of its map of each
    level in turn. All that comes after is the head's own code: further convolutions, other branches, scales.

    Args:
        head: The head.
        layer: Which convolution, counted from 1.
        maps: Branch -> what its convolution would give before its activation, level by level.

    Raises:
        ValueError: The head took another number of maps than there are.
    """
    left = {branch: iter(levels) for branch, levels in maps.items()}
    with ExitStack() as stack:
        for branch in maps:
            convs = _convs(head, branch, layer)
            for conv in convs[: layer - 1]:
                stack.enter_context(hiding(conv, 'forward', _handed_on))
            last = convs[layer - 1]
            stack.enter_context(hiding(last, 'forward', _handing_out(last, left[branch])))
        yield
        if any(next(levels, None) is not None for levels in left.values()):
            raise ValueError(f'{type(head).__name__} has not asked for the maps of all levels')


def _handed_on(feat: Tensor, *_: Any, **__: Any) -> Tensor:
    return feat


def _handing_out(conv: nn.Module, levels: Iterator[Tensor]) -> Callable[..., Tensor]:
    def forward(*_: Any, **__: Any) -> Tensor:
        level = next(levels, None)
        if level is None:
            raise ValueError('the head calls its convolutions more often than it has levels')
        return conv.activate(level) if conv.with_activation else level

    return forward


def _convs(head: nn.Module, branch: str, layer: int) -> nn.ModuleList:
    convs, name = getattr(head, branch, None), type(head).__name__
    orders = {getattr(conv, 'order', None) for conv in convs} if isinstance(convs, nn.ModuleList) else {None}
    if not orders <= {('conv', 'norm', 'act')}:
        raise ValueError(f'the {branch} of a {name} are no list of convolutions with norm and activation')
    if not 1 <= layer <= len(convs):
        raise ValueError(f'the {branch} of this {name} are {len(convs)} convolutions, found layer={layer}')
    return convs
