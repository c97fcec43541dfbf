"""Outputs of pose estimators: where a keypoint is in x and in y."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmrkd.models.losses.functional import kl_divergence


def coordinate_kl(student: Sequence[Tensor], teacher: Sequence[Tensor], beta: float = 1.0) -> Tensor:
    r"""KL of the distributions of keypoints over the bins of each axis (DWPose, arXiv 2307.15880).

    .. math::
        \sum_{a \in \{x, y\}} \frac{1}{N J} \sum_{n,j}
        \mathrm{KL}(\mathrm{softmax}(\beta z^t_{a,n,j}) \,\|\, \mathrm{softmax}(\beta z^s_{a,n,j}))

    Args:
        student: One ``(N, J, bins)`` for each axis. Gradients flow.
        teacher: Same shapes. Detached here.
        beta: Factor of the logits > 0; that of RTMPose's loss is 10.

    Returns:
        A scalar >= 0.

    Raises:
        ValueError: The shapes differ, or ``beta`` is not positive.
    """
    if len(student) != len(teacher) or not beta > 0:
        raise ValueError(
            f'as many axes and a beta > 0 expected, found {len(student)} and {len(teacher)} axes, beta {beta}'
        )
    pairs = [(beta * own.flatten(0, 1), beta * other.flatten(0, 1)) for own, other in zip(student, teacher)]
    return torch.stack([kl_divergence(*pair) for pair in pairs]).sum()
