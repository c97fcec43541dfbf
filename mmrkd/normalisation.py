"""What a data preprocessor does to the pixels of an image."""

from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Normalisation:
    """Order of the channels, mean and deviation, padding.

    Attributes:
        rgb: Whether the channels, which OpenMMLab reads as blue, green, red, are turned around.
        mean: ``(C, 1, 1)``, of pixels from 0 to 255; ``None`` without normalisation.
        std: The same.
        divisor: Height and width are padded to multiples of it, below and on the right.
        pad_value: With this value, after normalisation.
    """

    rgb: bool
    mean: Optional[Tensor]
    std: Optional[Tensor]
    divisor: int
    pad_value: float

    @classmethod
    def of(cls, preprocessor: nn.Module) -> 'Normalisation':
        """Reads it off a data preprocessor."""
        rgb = _first_of(preprocessor, 'to_rgb', '_channel_conversion', 'channel_conversion')
        normalise = getattr(preprocessor, '_enable_normalize', False)
        return cls(
            rgb=bool(rgb),
            mean=preprocessor.mean.detach().cpu().float() if normalise else None,
            std=preprocessor.std.detach().cpu().float() if normalise else None,
            divisor=int(getattr(preprocessor, 'pad_size_divisor', 1)),
            pad_value=float(_first_of(preprocessor, 'pad_value', 'pad_val') or 0),
        )

    def same_pixels(self, other: 'Normalisation') -> bool:
        """Whether both make the same of an image, up to how far they pad it."""

        def equal(a: Optional[Tensor], b: Optional[Tensor]) -> bool:
            return a is b or (a is not None and b is not None and a.shape == b.shape and torch.equal(a, b))

        return (self.rgb, self.pad_value) == (other.rgb, other.pad_value) and (
            equal(self.mean, other.mean) and equal(self.std, other.std)
        )


def _first_of(preprocessor: nn.Module, *names: str) -> Any:
    """The libraries, and their versions, have other names for one attribute; ``None`` if there is none of them."""
    return next((getattr(preprocessor, name) for name in names if hasattr(preprocessor, name)), None)
