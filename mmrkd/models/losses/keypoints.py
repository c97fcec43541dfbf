"""Outputs of pose estimators: heatmaps, and where a keypoint is in x and in y."""

from collections.abc import Sequence
from typing import Optional

import torch
from torch import Tensor

from mmrkd.models.losses.functional import _precise, kl_divergence
from mmrkd.models.losses.shapes import check_maps


def map_error(student: Tensor, teacher: Tensor, visible: Optional[Tensor] = None) -> Tensor:
    r"""Half of the mean squared error of heatmaps, the loss of Fast Pose Distillation (arXiv 1811.05419).

    .. math:: \frac{1}{2} \mathrm{mean}_{n,j,p} (v_{n,j} h^s_{n,j,p} - v_{n,j} h^t_{n,j,p})^2

    Invisible joints count in the mean, with an error of 0. The task loss of mmpose's ``KeypointMSELoss`` is the same
    without the half.

    Args:
        student: ``(N, J, H, W)``. Gradients flow.
        teacher: Same shape. Detached here.
        visible: v >= 0, ``(N, J)``. Detached here. Defaults to None: all are.

    Returns:
        A scalar >= 0.

    Raises:
        ValueError: The shapes differ.
    """
    check_maps(student, teacher)
    errors = (_precise(student) - _precise(teacher.detach())).square().mean(dim=(2, 3))
    if visible is None:
        return errors.mean() / 2
    if visible.shape != errors.shape:
        raise ValueError(
            f'visible: {tuple(errors.shape)} expected, a number for each joint, found {tuple(visible.shape)}'
        )
    return (errors * _precise(visible.detach()).square()).mean() / 2


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
