"""A model as a product takes it: images in, results out, nothing of a framework around it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrkd.normalisation import Normalisation


@dataclass(frozen=True)
class Agreement:
    """How well the outputs of a file agree with the predictions of the model.

    Attributes:
        fits: Whether they are the same, up to rounding.
        text: The numbers behind that, in words.
    """

    fits: bool
    text: str


class ImageGraph(nn.Module, ABC):
    """Runs a model on images as they come from a file or a camera: RGB, 0 to 255, any number of one size.

    What the data preprocessor does in the framework (order of the channels, normalisation, padding) is done inside.
    Everything is traceable, and the number of images stays free.

    Args:
        model: The model. Put into evaluation mode.
        size: ``(height, width)`` of the images.

    Attributes:
        names: Of the outputs, in order.
    """

    names: tuple[str, ...]

    def __init__(self, model: nn.Module, size: Sequence[int]) -> None:
        super().__init__()
        self.model, self.size = model, tuple(size)
        self.eval()  # the graph itself, too: whatever traces it puts all of it back into the mode that it had
        self.normalisation = norm = Normalisation.of(model.data_preprocessor)
        if norm.mean is not None:
            self.register_buffer('mean', norm.mean.clone(), persistent=False)
            self.register_buffer('std', norm.std.clone(), persistent=False)
        self.margins = [math.ceil(length / norm.divisor) * norm.divisor - length for length in self.size]

    def prepared(self, images: Tensor) -> Tensor:
        """Turns images ``(N, 3, H, W)`` into what the data preprocessor makes of them."""
        inputs = images.float()
        if not self.normalisation.rgb:
            inputs = inputs.flip(1)
        if self.normalisation.mean is not None:
            inputs = (inputs - self.mean) / self.std
        if any(self.margins):
            inputs = F.pad(inputs, (0, self.margins[1], 0, self.margins[0]), value=self.normalisation.pad_value)
        return inputs

    def framework(self, images: Tensor, mode: str = 'predict') -> Any:
        """Returns what the model itself makes of the images, through its own data preprocessor.

        Args:
            images: ``(N, 3, H, W)``, RGB, ``uint8``.
            mode: ``'predict'``, or ``'tensor'`` for what its head computes.
        """
        batch = dict(inputs=list(images.flip(1)), data_samples=self.samples(len(images)))
        with torch.no_grad():
            data = self.model.data_preprocessor(batch, False)
            return self.model(**data, mode=mode)

    def checkable(self) -> 'ImageGraph':
        """Returns a graph that differs in thresholds alone, so that random images give something to compare."""
        return self

    @abstractmethod
    def samples(self, count: int) -> list:
        """Returns data samples of so many images of this size."""

    @abstractmethod
    def agreement(self, found: Sequence[Tensor], images: Tensor) -> Agreement:
        """Compares outputs for some images with what the model predicts for them."""


def largest_difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Returns the largest absolute difference between tensors of equal shapes; infinite if the shapes differ."""
    if [f.shape for f in found] != [e.shape for e in expected]:
        return math.inf
    pairs = [(f.double(), e.double()) for f, e in zip(found, expected) if f.numel()]
    worst = max((float((f - e).abs().max()) for f, e in pairs), default=0.0)
    return math.inf if math.isnan(worst) else worst
