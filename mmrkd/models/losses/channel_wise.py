"""CWD: where each channel looks."""

import torch.nn.functional as F
from torch import Tensor

from mmrkd.models.losses.functional import _precise
from mmrkd.models.losses.shapes import check_maps


def channel_divergence(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    r"""Channel-wise divergence of one level (Shu et al., arXiv 2011.13256, Eq. 4), without its weight.

    .. math::
        \frac{\tau^2}{N C} \sum_{n,c} \mathrm{KL}(\phi(f_t)_{n,c} \,\|\, \phi(f_s)_{n,c}), \qquad
        \phi(f)_{n,c} = \mathrm{softmax}_p(f_{n,c,p} / \tau)

    Each channel is a distribution over the H W positions: what counts is where it is high, not how high. A constant
    that is added to a channel changes nothing. Padded cells are positions like others.

    Args:
        student: ``(N, C, H, W)``. Gradients flow.
        teacher: ``(N, C, H, W)``. Detached here.
        tau: Temperature > 0.

    Returns:
        A scalar >= 0.

    Raises:
        ValueError: The shapes differ, or ``tau`` is not positive.
    """
    check_maps(student, teacher)
    if tau <= 0:
        raise ValueError(f'tau must be > 0, found {tau}')
    n, c = student.shape[:2]
    log_student, log_teacher = (F.log_softmax(_precise(f).flatten(2) / tau, dim=2) for f in (student, teacher.detach()))
    return F.kl_div(log_student, log_teacher, reduction='sum', log_target=True) * tau**2 / (n * c)
