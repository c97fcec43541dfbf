"""Makes the teacher's input out of the student's: the same pixels, normalised as the teacher wants them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class _Normalisation:
    rgb: bool
    mean: Optional[Tensor]
    std: Optional[Tensor]
    divisor: int
    pad_value: float

    @classmethod
    def of(cls, preprocessor: nn.Module) -> '_Normalisation':
        rgb = getattr(preprocessor, 'to_rgb', getattr(preprocessor, '_channel_conversion', False))
        normalise = getattr(preprocessor, '_enable_normalize', False)
        return cls(
            rgb=bool(rgb),
            mean=preprocessor.mean.detach().cpu().float() if normalise else None,
            std=preprocessor.std.detach().cpu().float() if normalise else None,
            divisor=int(getattr(preprocessor, 'pad_size_divisor', 1)),
            pad_value=float(getattr(preprocessor, 'pad_value', 0)),
        )

    def same_pixels(self, other: '_Normalisation') -> bool:
        def equal(a: Optional[Tensor], b: Optional[Tensor]) -> bool:
            return a is b or (a is not None and b is not None and a.shape == b.shape and torch.equal(a, b))

        return (self.rgb, self.pad_value) == (other.rgb, other.pad_value) and (
            equal(self.mean, other.mean) and equal(self.std, other.std)
        )


class InputConverter:
    """Turns a batch that the student's data preprocessor made into what the teacher's would have made.

    The augmented pixels are recovered by inverting the student's normalisation; then the teacher's channel order and
    normalisation are applied, and what lies outside each image is filled with the teacher's padding value. If the two
    preprocessors agree, the batch is passed on untouched.

    Args:
        student: Data preprocessor of the student.
        teacher: Data preprocessor of the teacher.
        size: ``(height, width)`` that the teacher's images are resized to, where it has an input size of its own. They
            are not padded then. Defaults to None: pixels stay where they are.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, size: Optional[Sequence[int]] = None) -> None:
        self.size = size
        self.student = _Normalisation.of(student)
        self.teacher = _Normalisation.of(teacher)
        self.same_pixels = self.student.same_pixels(self.teacher)

    def __call__(self, inputs: Tensor, samples: Optional[Sequence] = None) -> Tensor:
        """Converts a batch.

        Args:
            inputs: The student's input ``(N, 3, H, W)``.
            samples: Data samples; ``img_shape`` in their meta information says where the padding begins.

        Returns:
            The teacher's input ``(N, 3, H', W')`` with ``H' >= H`` and ``W' >= W`` multiples of the teacher's divisor.
        """
        outputs = inputs if self.same_pixels else self._renormalise(inputs, samples)
        if self.size is not None:
            return F.interpolate(outputs, tuple(self.size), mode='bilinear', align_corners=False, antialias=True)
        height, width = inputs.shape[-2:]
        pad_h = math.ceil(height / self.teacher.divisor) * self.teacher.divisor - height
        pad_w = math.ceil(width / self.teacher.divisor) * self.teacher.divisor - width
        if pad_h or pad_w:
            outputs = F.pad(outputs, (0, pad_w, 0, pad_h), value=self.teacher.pad_value)
        return outputs

    def _renormalise(self, inputs: Tensor, samples: Optional[Sequence]) -> Tensor:
        pixels = inputs.clone()
        if self.student.mean is not None:
            pixels = pixels * self.student.std.to(inputs) + self.student.mean.to(inputs)
        if self.student.rgb != self.teacher.rgb:
            pixels = pixels.flip(1)
        if self.teacher.mean is not None:
            pixels = (pixels - self.teacher.mean.to(inputs)) / self.teacher.std.to(inputs)
        for image, sample in zip(pixels, samples or ()):
            shape = sample.get('img_shape') if hasattr(sample, 'get') else None
            if shape is not None:
                image[:, shape[0] :] = self.teacher.pad_value
                image[:, :, shape[1] :] = self.teacher.pad_value
        return pixels
