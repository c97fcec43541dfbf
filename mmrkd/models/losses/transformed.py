"""The teacher's distribution raised to a power: TTM and WTTM."""

import torch.nn.functional as F
from torch import Tensor

from mmrkd.models.losses.functional import _check_logits, _precise


def transformed_matching(z_s: Tensor, z_t: Tensor, gamma: float, weighted: bool = True) -> Tensor:
    r"""Zheng and Yang, `Knowledge Distillation Based on Transformed Teacher Matching` (arXiv 2402.11148).

    .. math:: \frac{1}{N} \sum_n U_n KL(u_n / U_n \| softmax(z_s)), \quad u = softmax(z_t)^\gamma, \quad U = \sum_k u_k

    Only the teacher is softened, and no factor :math:`\tau^2` is needed: :math:`u / U = softmax(\gamma z_t)`. U, from 1
    (the teacher is sure) to :math:`K^{1 - \gamma}` (it is not) for :math:`\gamma < 1`, weighs the samples (WTTM);
    without it this is TTM.

    Args:
        z_s: Logits of the student, ``(N, K)``. Gradients flow.
        z_t: Logits of the teacher, ``(N, K)``. Detached here.
        gamma: Power > 0, the inverse of a temperature.
        weighted: Whether samples are weighed by U. Defaults to True.

    Returns:
        A scalar >= 0; 0 where :math:`z_s = \gamma z_t`, and not where the logits are equal.

    Raises:
        ValueError: Shapes differ, or gamma is not positive.
    """
    _check_logits(z_s, z_t, 1.0)
    if gamma <= 0:
        raise ValueError(f'gamma must be > 0, found {gamma}')
    log_s, log_t = F.log_softmax(_precise(z_s), dim=1), F.log_softmax(_precise(z_t.detach()), dim=1)
    mass = (gamma * log_t).logsumexp(dim=1)
    target = gamma * log_t - mass[:, None]
    divergence = F.kl_div(log_s, target, reduction='none', log_target=True).sum(dim=1)
    return (divergence * mass.exp() if weighted else divergence).mean()
