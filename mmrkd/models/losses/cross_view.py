"""KL divergence within and across two views of an image: CRLD."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmrkd.models.losses.functional import _check_logits, _precise

GATES = ('released', 'target')


def cross_view_kl(
    z_s_weak: Tensor,
    z_s_strong: Tensor,
    z_t_weak: Tensor,
    z_t_strong: Tensor,
    tau: float = 4.0,
    tau_weak: float = 0.9,
    tau_strong: float = 0.2,
    gate: str = 'released',
) -> tuple[Tensor, Tensor]:
    r"""The two terms of CRLD (`Cross-view consistency`, arXiv 2412.16493).

    .. math::
        KD(a, b)_n = \tau^2 KL(softmax(z_{t,n}^b / \tau) \| softmax(z_{s,n}^a / \tau)) \\
        within = \frac{1}{N} \sum_n m^w_n (KD(w, w)_n + KD(s, s)_n) \qquad
        cross = \frac{1}{N} \sum_n m^s_n (KD(s, w)_n + KD(w, s)_n)

    w is the weak view, s the strong one, a that of the student and b that of the teacher. The gates m are 1 where the
    teacher is sure, see :func:`sure_of`. The mean is over all N, gated or not, as in the release.

    Args:
        z_s_weak: Logits of the student on the weak view, ``(N, K)``. Gradients flow.
        z_s_strong: The same on the strong view. Gradients flow.
        z_t_weak: Logits of the teacher on the weak view, ``(N, K)``. Detached here.
        z_t_strong: The same on the strong view. Detached here.
        tau: Temperature > 0. Defaults to 4.
        tau_weak: Least confidence on the weak view. Defaults to 0.9.
        tau_strong: Least confidence on the strong view. Defaults to 0.2.
        gate: ``'released'``: both terms within go by the weak view and both across by the strong one, as above.
            ``'target'`` (ours): each KD goes by the view that its target comes from. Defaults to ``'released'``.

    Returns:
        ``(within, cross)``, scalars >= 0.

    Raises:
        ValueError: Shapes differ, or ``gate`` is unknown.
    """
    if gate not in GATES:
        raise ValueError(f'gate must be one of {GATES}, found {gate!r}')
    _check_logits(z_s_weak, z_t_strong, tau)
    weak, strong = sure_of(z_t_weak, tau_weak), sure_of(z_t_strong, tau_strong)
    by_target = gate == 'target'
    within = weak * _rows(z_s_weak, z_t_weak, tau)
    within = within + (strong if by_target else weak) * _rows(z_s_strong, z_t_strong, tau)
    cross = (weak if by_target else strong) * _rows(z_s_strong, z_t_weak, tau)
    cross = cross + strong * _rows(z_s_weak, z_t_strong, tau)
    return within.mean(), cross.mean()


def sure_of(z_t: Tensor, threshold: float) -> Tensor:
    """Tells of which samples a teacher is sure: its highest probability, at temperature 1, reaches a threshold.

    Args:
        z_t: Logits ``(N, K)``. Detached here.
        threshold: Least probability.

    Returns:
        ``(N,)``, 1 where it is sure and 0 where not, in the precision of the losses.
    """
    confidence = _precise(z_t.detach()).softmax(dim=1).amax(dim=1)
    return (confidence >= threshold).to(confidence)


def _rows(z_s: Tensor, z_t: Tensor, tau: float) -> Tensor:
    """KL of each sample, ``(N,)``."""
    _check_logits(z_s, z_t, tau)
    log_s, log_t = (F.log_softmax(_precise(z) / tau, dim=1) for z in (z_s, z_t.detach()))
    return F.kl_div(log_s, log_t, reduction='none', log_target=True).sum(dim=1) * tau**2


def kept_kl(z_s: Tensor, z_t: Tensor, kept: Tensor, tau: float) -> Tensor:
    r"""Softmax KL divergence of some samples, averaged over those.

    .. math:: \frac{\tau^2}{\max(1, |kept|)} \sum_{n \in kept} KL(softmax(z_t / \tau) \| softmax(z_s / \tau))

    Args:
        z_s: Logits of the student, ``(N, K)``. Gradients flow.
        z_t: Logits of the teacher, ``(N, K)``. Detached here.
        kept: Which samples count, boolean ``(N,)``.
        tau: Temperature > 0.

    Returns:
        A scalar >= 0; 0 if none is kept.
    """
    rows = _rows(z_s, z_t, tau)
    return torch.where(kept, rows, torch.zeros_like(rows)).sum() / kept.sum().clamp(min=1)
