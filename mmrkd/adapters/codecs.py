"""What turns keypoints into targets, as two models are compared by it."""

from collections.abc import Sequence
from typing import Any, Optional

import torch
from torch import Tensor

ONLY_DECODING = ('blur_kernel_size', 'scale_factor', 'decode_beta', 'decode_visibility', 'use_dark')


def settings_of(codec: Any) -> Optional[str]:
    """Describes what a codec of mmpose makes of keypoints; how it reads outputs does not matter.

    Returns:
        ``'MSRAHeatmap(heatmap_size=[48, 64], input_size=[192, 256], sigma=2, unbiased=False)'``; ``None`` without a
        codec.
    """
    if codec is None:
        return None
    settings = {name: _text(value) for name, value in vars(codec).items() if name not in ONLY_DECODING}
    return f'{type(codec).__name__}({", ".join(f"{name}={text}" for name, text in sorted(settings.items()))})'


def _text(value: Any) -> str:
    """One text for all ways to write the same numbers: tuples, arrays, whole numbers with a point."""
    value = value.tolist() if hasattr(value, 'tolist') else value
    if isinstance(value, (list, tuple)):
        return f'[{", ".join(map(_text, value))}]'
    return f'{value:g}' if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def coordinate_targets(samples: Sequence) -> tuple[Tensor, Tensor]:
    """Returns the distributions of keypoints over the bins of x ``(N, J, W)`` and of y ``(N, J, H)``."""
    labels = [sample.gt_instance_labels for sample in samples]
    return tuple(torch.cat([label.get(f'keypoint_{axis}_labels') for label in labels]) for axis in 'xy')
