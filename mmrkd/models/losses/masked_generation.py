"""MGD: the error of a generated feature."""

from torch import Tensor

from mmrkd.models.losses.functional import _precise
from mmrkd.models.losses.shapes import check_maps


def generation_error(estimate: Tensor, teacher: Tensor) -> Tensor:
    r"""Squared error of a generated feature of one level (Yang et al., arXiv 2205.01529, Eq. 4), without its weight.

    .. math:: \frac{1}{N} \sum_{n,c,p} (e_{n,c,p} - f_{t,n,c,p})^2

    The sum runs over hidden and kept cells alike. It grows with the map: the weights of the authors are small.

    Args:
        estimate: ``(N, C, H, W)``. Gradients flow.
        teacher: ``(N, C, H, W)``. Detached here.

    Returns:
        A scalar >= 0.

    Raises:
        ValueError: The shapes differ.
    """
    check_maps(estimate, teacher)
    return squared_error(estimate, teacher.detach())


def squared_error(one: Tensor, other: Tensor) -> Tensor:
    """Squared error of two maps ``(N, C, H, W)``, summed within an image and averaged over images.

    Gradients flow into both.
    """
    return (_precise(one) - _precise(other)).square().sum() / len(one)
