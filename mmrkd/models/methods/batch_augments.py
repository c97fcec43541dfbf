"""Augmentations of a finished batch, on its own device, drawn from torch's generators alone."""

from functools import partial
from typing import Callable

import torch
from torch import Tensor

ALPHAS = dict(mixup=0.2, cutmix=1.0)
AUGMENTS = ('cutmix', 'mixup', 'cutout')


def augmented(inputs: Tensor, how: str, cutout_size: int = 16) -> Tensor:
    """Returns a batch once more, augmented. Draws are torch's, so that a resumed run draws the same.

    Args:
        inputs: Normalised images ``(N, 3, H, W)``. Not changed.
        how: ``'mixup'``: each image is mixed with another, by a share from Beta(0.2, 0.2). ``'cutmix'``: a box of each
            is filled with that of another, whose area is a share from Beta(1, 1). ``'cutout'``: a square of each, at
            one place for the batch, is filled with 0, the mean.
        cutout_size: Side of that square in pixels.

    Returns:
        ``(N, 3, H, W)``.
    """
    functions: dict[str, Callable[[Tensor], Tensor]] = dict(
        mixup=_mixup, cutmix=_cutmix, cutout=partial(_cutout, size=cutout_size)
    )
    return functions[how](inputs)


def _mixup(inputs: Tensor) -> Tensor:
    share = _share(ALPHAS['mixup'])
    return share * inputs + (1 - share) * _permuted(inputs)


def _cutmix(inputs: Tensor) -> Tensor:
    side = (1 - _share(ALPHAS['cutmix'])) ** 0.5
    rows, columns = (_span(length, side * length) for length in inputs.shape[2:])
    outputs, others = inputs.clone(), _permuted(inputs)
    outputs[:, :, rows, columns] = others[:, :, rows, columns]
    return outputs


def _cutout(inputs: Tensor, size: int) -> Tensor:
    rows, columns = (_span(length, size) for length in inputs.shape[2:])
    outputs = inputs.clone()
    outputs[:, :, rows, columns] = 0
    return outputs


def _share(alpha: float) -> float:
    return float(torch.distributions.Beta(alpha, alpha).sample())


def _permuted(inputs: Tensor) -> Tensor:
    return inputs[torch.randperm(len(inputs)).to(inputs.device)]


def _span(length: int, size: float) -> slice:
    """A stretch of that size around a centre drawn from the whole length, cut off where it reaches out."""
    start = int(torch.randint(length, ())) - int(size) // 2
    return slice(max(0, start), min(length, start + int(size)))
