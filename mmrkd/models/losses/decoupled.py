"""KL divergences that are split into groups of classes: DKD and GDKD."""

from collections.abc import Sequence
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from mmrkd.models.losses.functional import _check_logits, _precise

DIRECTIONS = ('forward', 'reverse', 'both')


def decoupled_kl(z_s: Tensor, z_t: Tensor, labels: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    r"""The two terms of DKD (Zhao et al., `Decoupled Knowledge Distillation`, arXiv 2203.08679, Eq. 7).

    .. math::
        TCKD = \frac{\tau^2}{N} \sum_n KL(b_t \| b_s), \quad b = (p^y, 1 - p^y), \quad p = softmax(z / \tau) \qquad
        NCKD = \frac{\tau^2}{N} \sum_n KL(q_t \| q_s), \quad q = softmax(z_{\setminus y} / \tau)

    They are the groups {y} and {the others} of :func:`grouped_kl`. Of each sample,
    :math:`KL(p_t \| p_s) = KL(b_t \| b_s) + (1 - p_t^y) KL(q_t \| q_s)`. With two classes NCKD is 0. The release adds
    up probabilities before it takes their logarithm, which is infinite where they underflow; here all is in logarithms.

    Args:
        z_s: Logits of the student, ``(N, K)``. Gradients flow.
        z_t: Logits of the teacher, ``(N, K)``. Detached here.
        labels: The class y of each sample, ``(N,)``.
        tau: Temperature > 0.

    Returns:
        TCKD and NCKD, scalars >= 0, averaged over N.

    Raises:
        ValueError: Shapes do not fit, or there are fewer than two classes.
    """
    _check_logits(z_s, z_t, tau)
    if labels.shape != z_s.shape[:1]:
        raise ValueError(f'one label for each of {len(z_s)} samples expected, found labels {tuple(labels.shape)}')
    target = torch.zeros_like(z_s, dtype=torch.bool).scatter(1, labels[:, None], True)
    target_term, _, other_term = grouped_kl(z_s, z_t, (target, ~target), tau)
    return target_term, other_term


def grouped_kl(
    z_s: Tensor, z_t: Tensor, groups: Sequence[Tensor], tau: float, kl: str = 'forward'
) -> tuple[Tensor, ...]:
    r"""KL divergence between groups of classes, and inside each of them (GDKD, arXiv 2512.04625).

    .. math::
        high = \frac{\tau^2}{N} \sum_n \sum_g P_t(U_g) \log \frac{P_t(U_g)}{P_s(U_g)} \qquad
        inner_g = \frac{\tau^2}{N} \sum_n KL(softmax(z_{t,U_g} / \tau) \| softmax(z_{s,U_g} / \tau))

    P(U) is the sum of :math:`softmax(z / \tau)` over the classes U. Of each sample,
    :math:`KL(p_t \| p_s) = high + \sum_g P_t(U_g) inner_g`. Everything is in logarithms, so that nothing underflows.

    Args:
        z_s: Logits of the student, ``(N, K)``. Gradients flow.
        z_t: Logits of the teacher, ``(N, K)``. Detached here.
        groups: Which classes belong to each group, boolean ``(N, K)``. Of each sample every class is in one group, and
            no group is empty.
        tau: Temperature > 0.
        kl: Direction of the inner terms: ``'forward'`` (from the teacher), ``'reverse'``, or ``'both'``: half the sum.
            ``high`` is always forward. Defaults to ``'forward'``.

    Returns:
        ``(high, inner_1, ..., inner_G)``, scalars >= 0, averaged over N. A group of one class has an inner term of 0.

    Raises:
        ValueError: Shapes do not fit, there are fewer classes than groups, or ``kl`` is unknown.
    """
    _check_logits(z_s, z_t, tau)
    if any(group.shape != z_s.shape for group in groups) or not 1 <= len(groups) <= z_s.shape[1]:
        raise ValueError(
            f'groups of classes of the shape {tuple(z_s.shape)} expected, none of them empty, found '
            f'{[tuple(group.shape) for group in groups]}'
        )
    if kl not in DIRECTIONS:
        raise ValueError(f'kl must be one of {DIRECTIONS}, found {kl!r}')
    student, teacher = _precise(z_s) / tau, _precise(z_t.detach()) / tau
    masses = (torch.stack([_masked(z, g).logsumexp(dim=1) for g in groups], dim=1) for z in (student, teacher))
    high = _kl(*(F.log_softmax(mass, dim=1) for mass in masses))
    return tuple(term * tau**2 for term in (high, *(_inner(student, teacher, group, kl) for group in groups)))


def ranked_groups(z_t: Tensor, k: int, groups: int = 2, best: bool = True) -> tuple[Tensor, ...]:
    """Splits the classes of each sample by the teacher's ranking (GDKD).

    Args:
        z_t: Logits of the teacher, ``(N, K)``.
        k: Classes that are set apart, from ``groups - 1`` to ``K - 1``. Of equal logits any may be chosen.
        groups: 2: the first k | the rest. 3: the first | the next k - 1 | the rest. Defaults to 2.
        best: Whether the ranking begins with the highest logit, or with the lowest. Defaults to True.

    Returns:
        Boolean ``(N, K)`` for each group.

    Raises:
        ValueError: ``groups`` is neither 2 nor 3, or a group would be empty.
    """
    if groups not in (2, 3):
        raise ValueError(f'groups must be 2 or 3, found {groups}')
    if not groups - 1 <= k < z_t.shape[1]:
        raise ValueError(
            f'k must be from {groups - 1} to {z_t.shape[1] - 1}, so that none of {groups} groups of {z_t.shape[1]} '
            f'classes is empty, found {k}'
        )
    ranking = z_t.detach().topk(k, dim=1, largest=best).indices
    first_k, first = (torch.zeros_like(z_t, dtype=torch.bool).scatter(1, ranking[:, :n], True) for n in (k, 1))
    return (first_k, ~first_k) if groups == 2 else (first, first_k & ~first, ~first_k)


def _inner(student: Tensor, teacher: Tensor, group: Tensor, kl: str) -> Tensor:
    log_s, log_t = (F.log_softmax(_masked(z, group), dim=1) for z in (student, teacher))
    log_s, log_t = (log.masked_fill(~group, 0.0) for log in (log_s, log_t))  # -inf - -inf is no number
    forward, reverse = (_kl(a, b, group) for a, b in ((log_s, log_t), (log_t, log_s)))
    return {'forward': forward, 'reverse': reverse, 'both': (forward + reverse) / 2}[kl]


def _masked(logits: Tensor, group: Tensor) -> Tensor:
    return logits.masked_fill(~group, float('-inf'))


def _kl(log_q: Tensor, log_p: Tensor, group: Optional[Tensor] = None) -> Tensor:
    """KL(p || q), averaged over rows, of the classes in a group."""
    terms = log_p.exp() * (log_p - log_q)
    return (terms if group is None else terms.masked_fill(~group, 0.0)).sum(dim=1).mean()
