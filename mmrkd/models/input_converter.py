"""Makes the teacher's input out of the student's: the same pixels, normalised as the teacher wants them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrkd.normalisation import Normalisation


class InputConverter:
    """Turns a batch that the student's data preprocessor made into what the teacher's would have made.

    The augmented pixels are recovered by inverting the student's normalisation; then the teacher's channel order and
    normalisation are applied, and the padding of each image is filled with the teacher's value. If the two
    preprocessors agree, the batch is passed on untouched.

    ``img_shape`` says where the padding of an image begins, but not every pipeline keeps it up to date (transforms of
    torchvision do not). So what lies outside of it counts as padding only if all of it has the student's padding value.

    Args:
        student: Data preprocessor of the student.
        teacher: Data preprocessor of the teacher.
        size: ``(height, width)`` that the teacher's images are resized to, where it has an input size of its own. They
            are not padded then. Defaults to None: pixels stay where they are.
        padded: Whether ``img_shape`` is that of the image within the input. Defaults to True; of a crop that was warped
            to the size of the input all is image, whatever the size of its file.
    """

    def __init__(
        self, student: nn.Module, teacher: nn.Module, size: Optional[Sequence[int]] = None, padded: bool = True
    ) -> None:
        self.size, self.padded = size, padded
        self.student = Normalisation.of(student)
        self.teacher = Normalisation.of(teacher)
        self.same_pixels = self.student.same_pixels(self.teacher)
        self._moved: dict[tuple, tuple[Optional[Tensor], ...]] = {}

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
        pad_h, pad_w = self._padded(height) - height, self._padded(width) - width
        if pad_h or pad_w:
            outputs = F.pad(outputs, (0, pad_w, 0, pad_h), value=self.teacher.pad_value)
        return outputs

    def convert(self, inputs: Tensor, samples: Any) -> tuple[Tensor, Any]:
        """Converts a batch together with what its samples say about it, for a teacher that predicts by itself.

        A detector of the DETR family masks what ``batch_input_shape`` and ``img_shape`` declare to be padding.

        Args:
            inputs: The student's input ``(N, 3, H, W)``.
            samples: Data samples, or None.

        Returns:
            The teacher's input, and samples whose ``batch_input_shape``, ``pad_shape`` and ``input_size`` (as far as
            they have them) are those of that input: the same samples if nothing changes, otherwise copies that share
            their contents.
        """
        outputs = self(inputs, samples)
        size = tuple(outputs.shape[-2:])
        if samples is None:
            return outputs, None
        if isinstance(samples, Mapping):
            metas = [{**meta, **self._other_sizes(meta, size)} for meta in samples.get('img_metas', ())]
            return outputs, {**samples, 'img_metas': metas} if metas else samples
        sizes = [self._other_sizes(getattr(sample, 'metainfo', {}), size) for sample in samples]
        return outputs, [_with_meta(*each) for each in zip(samples, sizes)] if any(sizes) else samples

    def _other_sizes(self, meta: Mapping, size: tuple[int, int]) -> dict[str, tuple[int, int]]:
        sizes = dict(batch_input_shape=size)
        if 'pad_shape' in meta:
            sizes['pad_shape'] = size if self.size is not None else tuple(map(self._padded, meta['pad_shape'][:2]))
        if self.size is not None:
            sizes['input_size'] = size[::-1]  # mmpose has width and height there, and decodes by them
        return {key: value for key, value in sizes.items() if key in meta and tuple(meta[key][:2]) != value}

    def _padded(self, length: int) -> int:
        return math.ceil(length / self.teacher.divisor) * self.teacher.divisor

    def _renormalise(self, inputs: Tensor, samples: Optional[Sequence]) -> Tensor:
        student_mean, student_std, teacher_mean, teacher_std = self._numbers(inputs)
        pixels = inputs.clone()
        if student_mean is not None:
            pixels = pixels * student_std + student_mean
        if self.student.rgb != self.teacher.rgb:
            pixels = pixels.flip(1)
        if teacher_mean is not None:
            pixels = (pixels - teacher_mean) / teacher_std
        for image, own, sample in zip(pixels, inputs, (samples or ()) if self.padded else ()):
            for region in _outside(sample):
                padding = (own[region] == self.student.pad_value).all()  # never asked from here: it would cost a wait
                image[region] = torch.where(padding, self.teacher.pad_value, image[region])
        return pixels

    def _numbers(self, images: Tensor) -> tuple[Optional[Tensor], ...]:
        """Mean and standard deviation of both, moved to a device once."""
        key = images.device, images.dtype
        if key not in self._moved:
            numbers = self.student.mean, self.student.std, self.teacher.mean, self.teacher.std
            self._moved[key] = tuple(None if n is None else n.to(images) for n in numbers)
        return self._moved[key]


def _with_meta(sample: Any, meta: dict[str, Any]) -> Any:
    copied = sample.new()
    copied.set_metainfo(meta)
    return copied


def _outside(sample: Any) -> Iterator[tuple[slice, ...]]:
    """Yields what lies below an image and to its right, where a sample says how large the image is."""
    shape = sample.get('img_shape') if hasattr(sample, 'get') else None
    if shape is not None:
        yield slice(None), slice(shape[0], None)
        yield slice(None), slice(None, shape[0]), slice(shape[1], None)
