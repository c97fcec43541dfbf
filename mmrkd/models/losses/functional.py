"""Pure loss functions. All compute in float32, whatever the precision of their inputs."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def feature_mse(estimates: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    r"""Mean squared error of features, averaged over levels.

    .. math:: \frac{1}{L} \sum_l \mathrm{mean}\left[(e_l - \mathrm{sg}(t_l))^2\right]

    Args:
        estimates: One tensor for each level, ``(N, C_l)`` or ``(N, C_l, H_l, W_l)``. Gradients flow.
        targets: Same shapes. Detached here.

    Returns:
        A scalar >= 0.

    Raises:
        ValueError: Numbers of levels or shapes differ.
    """
    if len(estimates) != len(targets) or not estimates:
        raise ValueError(f'expected as many targets as estimates, found {len(targets)} and {len(estimates)}')
    terms = []
    for level, (estimate, target) in enumerate(zip(estimates, targets)):
        if estimate.shape != target.shape:
            raise ValueError(
                f'level {level}: the estimate has shape {tuple(estimate.shape)}, the target {tuple(target.shape)}'
            )
        terms.append(F.mse_loss(estimate.float(), target.detach().float()))
    return torch.stack(terms).mean()


def kl_divergence(student_logits: Tensor, teacher_logits: Tensor, tau: float = 1.0) -> Tensor:
    r"""Softmax KL divergence of Hinton et al., `Distilling the Knowledge in a Neural Network` (arXiv 1503.02531).

    .. math:: \frac{\tau^2}{N} \sum_n \mathrm{KL}(\mathrm{softmax}(z_t/\tau) \,\|\, \mathrm{softmax}(z_s/\tau))

    Args:
        student_logits: ``(N, K)``. Gradients flow.
        teacher_logits: ``(N, K)``. Detached here.
        tau: Temperature > 0.

    Returns:
        A scalar >= 0, averaged over N.
    """
    _check_logits(student_logits, teacher_logits, tau)
    log_student = F.log_softmax(student_logits.float() / tau, dim=1)
    log_teacher = F.log_softmax(teacher_logits.detach().float() / tau, dim=1)
    return F.kl_div(log_student, log_teacher, reduction='batchmean', log_target=True) * tau**2


def sigmoid_kl(student_logits: Tensor, teacher_logits: Tensor, tau: float = 1.0) -> Tensor:
    r"""Bernoulli KL divergence of independent scores, for the dense logits of sigmoid heads.

    .. math::
        \frac{\tau^2}{\max(1, \sum_p \max_k \sigma(z_t/\tau))}
        \sum_{p,k} \mathrm{KL}(\sigma(z_t/\tau) \,\|\, \sigma(z_s/\tau))

    Almost all of the P anchors are background, so a mean over P would vanish; the sum is divided by the teacher's own
    soft count of objects instead (our choice; the ERA paper does not say).

    Args:
        student_logits: ``(P, K)``. Gradients flow.
        teacher_logits: ``(P, K)``. Detached here.
        tau: Temperature > 0.

    Returns:
        A scalar >= 0.
    """
    _check_logits(student_logits, teacher_logits, tau)
    student = student_logits.float() / tau
    teacher = teacher_logits.detach().float() / tau
    p = teacher.sigmoid()
    # p log(p/q) + (1-p) log((1-p)/(1-q)) with log p = z - softplus(z), log(1-p) = -softplus(z): exact for background.
    divergence = F.softplus(student) - F.softplus(teacher) - p * (student - teacher)
    return divergence.sum() * tau**2 / p.max(dim=1).values.sum().clamp(min=1.0)


def _check_logits(student_logits: Tensor, teacher_logits: Tensor, tau: float) -> None:
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f'logits of one shape expected: the student has {tuple(student_logits.shape)}, '
            f'the teacher {tuple(teacher_logits.shape)}'
        )
    if tau <= 0:
        raise ValueError(f'tau must be > 0, found {tau}')
