"""Which arguments of a backbone say how wide it is."""

import inspect
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Optional

from mmrkd.registry import MODELS

KNOWN = (
    'base_channels (with stem_channels, groups, base_width), widen_factor, embed_dims with num_heads of each stage, or '
    'an arch with w0 and wa, with channels, or with embed_dims'
)


@dataclass(frozen=True)
class Widths:
    """How one backbone is narrowed: all of its width arguments by one factor, in ``grid`` equal steps.

    Attributes:
        grid: Number of steps up to the original width. The finest that the arguments allow, 32 for real factors.
        scaled: Ratio in (0, 1] -> the arguments that belong to it.
    """

    grid: int
    scaled: Callable[[float], dict[str, Any]]

    def narrowed(self, backbone: dict, steps: int) -> dict:
        """Returns a copy of the config of ``steps / grid`` of the width."""
        return {**deepcopy(backbone), **self.scaled(steps / self.grid)}

    @classmethod
    def of(cls, backbone: dict) -> 'Widths':
        """Finds the width arguments of a backbone by their names in its constructor.

        Args:
            backbone: Config of a backbone; the default scope says whose.

        Raises:
            KeyError: No library that is loaded knows the type.
            ValueError: It has no width argument that is known.
        """
        kind, arguments = constructor_arguments(backbone)
        for rule in (_regnet, _arch, _embed_dims, _widen_factor, _base_channels):
            found = rule(kind, arguments)
            if found is not None:
                return found
        raise ValueError(
            f'{kind.__name__} cannot be narrowed: expected a width argument ({KNOWN}), but its constructor takes '
            f'{sorted(arguments.keys() - {"type"})}. Write two narrower backbones by hand and give them to '
            'mmrkd.ResidualPairBackbone.'
        )


def constructor_arguments(backbone: dict) -> tuple[type, dict[str, Any]]:
    """Returns the class of a backbone and all arguments of its constructor, given or default.

    Raises:
        KeyError: No library that is loaded knows the type.
    """
    with MODELS.switch_scope_and_registry(backbone.get('_scope_')) as registry:
        kind = registry.get(backbone['type'])
    if kind is None:
        raise KeyError(f'no backbone of type {backbone["type"]!r}. Is default_scope that of its library?')
    return kind, {**_defaults(kind), **backbone}


def _defaults(kind: type) -> dict[str, Any]:
    """Arguments of a constructor with their defaults, those that it hands up in ``**kwargs`` included."""
    defaults: dict[str, Any] = {}
    for base in kind.__mro__:
        if '__init__' not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters
        for name, parameter in parameters.items():
            if name != 'self' and parameter.kind is not parameter.VAR_KEYWORD:
                defaults.setdefault(name, parameter.default)
        if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
            break
    return defaults


def _named_arch(kind: type, arguments: dict) -> Optional[dict]:
    """The dictionary behind ``arch``; libraries keep the named ones in an attribute of the class."""
    arch = arguments.get('arch')
    if isinstance(arch, str):
        named = getattr(kind, 'arch_settings', None) or getattr(kind, 'arch_zoo', None)
        arch = named.get(arch) if isinstance(named, dict) else None
    return dict(arch) if isinstance(arch, dict) else None


def _scale(value: int, ratio: float, least: int = 1) -> int:
    return max(least, round(value * ratio))


def _regnet(kind: type, arguments: dict) -> Optional[Widths]:
    """Start and slope of the widths shrink together, so that the stages stay; the start is a multiple of 8."""
    arch = _named_arch(kind, arguments)
    if arch is None or not {'w0', 'wa'} <= arch.keys():
        return None

    def scaled(ratio: float) -> dict[str, Any]:
        narrow = dict(arch, w0=round(arch['w0'] * ratio), wa=arch['wa'] * ratio)
        return dict(arch=narrow, stem_channels=_scale(arguments['stem_channels'], ratio))

    return Widths(arch['w0'] // 8, scaled)


def _arch(kind: type, arguments: dict) -> Optional[Widths]:
    arch = _named_arch(kind, arguments)
    if arch is not None and isinstance(arch.get('channels'), (list, tuple)):
        channels = list(arch['channels'])
        return Widths(min(channels), lambda ratio: dict(arch=dict(arch, channels=[_scale(c, ratio) for c in channels])))
    inner = arch and _embed_dims(kind, arch)
    return inner and Widths(inner.grid, lambda ratio: dict(arch=dict(arch, **inner.scaled(ratio))))


def _embed_dims(kind: type, arguments: dict) -> Optional[Widths]:
    """The heads stay, each of them gets narrower; later stages are multiples of the first."""
    embed_dims, heads = arguments.get('embed_dims'), arguments.get('num_heads')
    if not isinstance(embed_dims, int) or not isinstance(heads, (list, tuple)):
        return None
    grid = embed_dims // heads[0]
    return Widths(grid, lambda ratio: dict(embed_dims=round(grid * ratio) * heads[0]))


def _widen_factor(kind: type, arguments: dict) -> Optional[Widths]:
    factor = arguments.get('widen_factor')
    if not isinstance(factor, (int, float)):
        return None
    return Widths(32, lambda ratio: dict(widen_factor=factor * ratio))


def _base_channels(kind: type, arguments: dict) -> Optional[Widths]:
    """ResNets. What widens the inside of a block (ResNeXt: groups, Res2Net: base_width) shrinks with its outside."""
    if not isinstance(arguments.get('base_channels'), int):
        return None
    widths = {'base_channels': 1, 'stem_channels': 1}
    if isinstance(arguments.get('groups'), int) and arguments['groups'] > 1:
        widths['groups'] = 2  # with one group it would be another block
    elif 'scales' in arguments:
        widths['base_width'] = 1
    least = {name: value for name, value in widths.items() if isinstance(arguments.get(name), int)}
    return Widths(
        arguments['base_channels'], lambda ratio: {n: _scale(arguments[n], ratio, m) for n, m in least.items()}
    )
