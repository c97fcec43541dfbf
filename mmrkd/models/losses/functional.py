"""Pure loss functions. All compute in float32 where their inputs are less precise."""

from collections.abc import Sequence
from typing import Optional, Union

import torch
import torch.nn.functional as F
from torch import Tensor

from mmrkd.models.losses.divergences import Levels, bernoulli_sum, levels_of, softmax_sum
from mmrkd.models.losses.divergences import precise as _precise


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
    return torch.stack([F.mse_loss(e, t) for e, t in _level_pairs(estimates, targets)]).mean()


def cosine_distance(estimates: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    r"""One minus the cosine between the channel vectors, averaged over positions, samples and levels.

    .. math:: \frac{1}{L} \sum_l \mathrm{mean}_{n,p}\left[1 - \cos(e_{l,n,:,p}, \mathrm{sg}(t_{l,n,:,p}))\right]

    Blind to magnitudes. Arguments, gradients and errors as in :func:`feature_mse`; in [0, 2].
    """
    pairs = _level_pairs(estimates, targets)
    return torch.stack([1 - F.cosine_similarity(e, t, dim=1).mean() for e, t in pairs]).mean()


def attention_distance(estimates: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    r"""Mean squared error of attention maps, summed over levels (Zagoruyko and Komodakis, arXiv 1612.03928, Eq. 2).

    .. math:: \sum_l \mathrm{mean}_{n,p}\left[\left(q(e_l) - \mathrm{sg}(q(t_l))\right)_{n,p}^2\right]

    The attention of a sample, :math:`q(f)_p = \sum_c f_{c,p}^2`, is divided by its L2 norm over the positions p, so
    magnitudes do not matter and the numbers of channels may differ. The mean over positions makes the value small: the
    authors weigh it with 500 to 1000.

    Args:
        estimates: One map for each level, ``(N, C_l, H_l, W_l)``. Gradients flow.
        targets: Maps of the same N, H_l, W_l; any number of channels. Detached here.

    Returns:
        A scalar >= 0.

    Raises:
        ValueError: Numbers of levels or shapes differ, or the features are vectors, which attend to no position.
    """
    maps = [[_attention(f) for f in feats] for feats in (estimates, targets)]
    return torch.stack([F.mse_loss(e, t) for e, t in _level_pairs(*maps)]).sum()


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
    log_student = F.log_softmax(_precise(student_logits) / tau, dim=1)
    log_teacher = F.log_softmax(_precise(teacher_logits.detach()) / tau, dim=1)
    return F.kl_div(log_student, log_teacher, reduction='batchmean', log_target=True) * tau**2


def softmax_kl_rows(student_logits: Tensor, teacher_logits: Tensor, tau: float = 1.0) -> Tensor:
    """As :func:`kl_divergence`, ``(N,)``: of each row by itself."""
    _check_logits(student_logits, teacher_logits, tau)
    log_student = F.log_softmax(_precise(student_logits) / tau, dim=1)
    log_teacher = F.log_softmax(_precise(teacher_logits.detach()) / tau, dim=1)
    return F.kl_div(log_student, log_teacher, reduction='none', log_target=True).sum(dim=1) * tau**2


def sigmoid_kl(
    student_logits: Levels, teacher_logits: Levels, tau: float = 1.0, columns: Optional[int] = None
) -> Tensor:
    r"""Bernoulli KL divergence of independent scores, for the dense logits of sigmoid heads.

    .. math::
        \frac{\tau^2}{\max(1, \sum_p \max_k \sigma(z_t/\tau))}
        \sum_{p,k} \mathrm{KL}(\sigma(z_t/\tau) \,\|\, \sigma(z_s/\tau))

    Almost all of the P anchors are background, so a mean over P would vanish; the sum is divided by the teacher's own
    soft count of objects instead (our choice; the ERA paper does not say).

    Args:
        student_logits: ``(P, K)``, or a sequence of such, one for each level; or maps ``(N, A * K, H, W)``. Gradients
            flow, once.
        teacher_logits: Same shapes. Detached here.
        tau: Temperature > 0.
        columns: K of maps.

    Returns:
        A scalar >= 0.
    """
    pairs = _checked_levels(student_logits, teacher_logits, tau)
    sums, objects = zip(*(bernoulli_sum(student, teacher, tau, columns) for student, teacher in pairs))
    return sum(sums) / sum(objects).clamp(min=1.0)


def background_kl(student_logits: Levels, teacher_logits: Levels, tau: float = 1.0) -> Tensor:
    r"""Softmax KL divergence of dense predictions whose last class is the background (SSD, YOLACT).

    .. math::
        \frac{\tau^2}{\max(1, \sum_p \max_{k < K} \mathrm{softmax}(z_t/\tau)_{pk})}
        \sum_p \mathrm{KL}(\mathrm{softmax}(z_t/\tau) \,\|\, \mathrm{softmax}(z_s/\tau))

    A mean over P would vanish here as it would in :func:`sigmoid_kl`, so the sum is divided by the same soft count of
    objects (ours).

    Args:
        student_logits: ``(P, K + 1)``, or a sequence of such, one for each level. Gradients flow, once.
        teacher_logits: Same shapes. Detached here.
        tau: Temperature > 0.

    Returns:
        A scalar >= 0.
    """
    pairs = _checked_levels(student_logits, teacher_logits, tau)
    scores = [(_precise(teacher.detach()) / tau).softmax(dim=1)[:, :-1].amax(dim=1).sum() for _, teacher in pairs]
    return sum(softmax_sum(student, teacher, tau) for student, teacher in pairs) / sum(scores).clamp(min=1.0)


def box_distribution_kl(
    student_boxes: Levels, teacher_boxes: Levels, confidence: Levels, bins: int, tau: float = 10.0
) -> Tensor:
    r"""Localization distillation of Zheng et al. (arXiv 2102.12252): KL of the distributions that GFL regresses.

    .. math::
        \frac{\tau^2}{\max(1, \sum_p c_p)} \sum_p \frac{c_p}{4} \sum_{side}
        \mathrm{KL}(\mathrm{softmax}(b_t/\tau) \,\|\, \mathrm{softmax}(b_s/\tau))

    The paper distils in regions that the ground truth chooses; weighting by the target's confidence is ours.

    Args:
        student_boxes: ``(P, 4 * bins)``, or a sequence of such, one for each level. Gradients flow, once.
        teacher_boxes: Same shapes. Detached here.
        confidence: ``(P,)`` in [0, 1], c, as many. Detached here.
        bins: Values of a distribution.
        tau: Temperature > 0.

    Returns:
        A scalar >= 0.
    """
    weights = [_precise(c.detach()) for c in levels_of(confidence)]
    sums = [
        softmax_sum(s.reshape(-1, bins), t.reshape(-1, bins), tau, (c / 4).repeat_interleave(4))
        for (s, t), c in zip(_checked_levels(student_boxes, teacher_boxes, tau), weights)
    ]
    return sum(sums) / sum(c.sum() for c in weights).clamp(min=1.0)


def box_l1(
    student_boxes: Levels,
    teacher_boxes: Levels,
    confidence: Levels,
    scales: Optional[Union[Tensor, Sequence[Optional[Tensor]]]] = None,
) -> Tensor:
    r"""L1 distance of box regressions, weighted by the confidence of the target (our choice).

    .. math:: \frac{1}{\max(1, \sum_p c_p)} \sum_p \frac{c_p}{4} \lVert (b_s - \mathrm{sg}(b_t)) / s \rVert_1

    Args:
        student_boxes: ``(P, 4)``, or a sequence of such, one for each level. Gradients flow.
        teacher_boxes: Same shapes. Detached here.
        confidence: ``(P,)`` in [0, 1], c, as many. Detached here.
        scales: ``(P, 4)`` > 0, s: what one unit of each value is worth, such as the sizes of the target. Detached here.
            Defaults to None: 1.

    Returns:
        A scalar >= 0.
    """
    pairs = _checked_levels(student_boxes, teacher_boxes, 1.0)
    weights = [_precise(c.detach()) for c in levels_of(confidence)]
    scales = [None] * len(pairs) if scales is None else levels_of(scales)
    sums = []
    for (student, teacher), c, scale in zip(pairs, weights, scales):
        sides = (_precise(student) - _precise(teacher.detach())).abs()
        sides = sides if scale is None else sides / _precise(scale.detach())
        sums.append((c * sides.mean(dim=1)).sum())
    return sum(sums) / sum(c.sum() for c in weights).clamp(min=1.0)


def _checked_levels(student: Levels, teacher: Levels, tau: float) -> list[tuple[Tensor, Tensor]]:
    pairs = list(zip(levels_of(student), levels_of(teacher)))
    for pair in pairs:
        _check_logits(*pair, tau)
    return pairs


def _level_pairs(estimates: Sequence[Tensor], targets: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Checks shapes; returns both sides of each level in float32, the target detached."""
    if len(estimates) != len(targets) or not estimates:
        raise ValueError(f'expected as many targets as estimates, found {len(targets)} and {len(estimates)}')
    for level, (estimate, target) in enumerate(zip(estimates, targets)):
        if estimate.shape != target.shape:
            raise ValueError(
                f'level {level}: the estimate has shape {tuple(estimate.shape)}, the target {tuple(target.shape)}'
            )
    return [(e.float(), t.detach().float()) for e, t in zip(estimates, targets)]


def _attention(feat: Tensor) -> Tensor:
    if feat.dim() != 4:
        raise ValueError(f'attention needs maps (N, C, H, W), found features of shape {tuple(feat.shape)}')
    return F.normalize(feat.float().square().mean(1).flatten(1))


def _check_logits(student_logits: Tensor, teacher_logits: Tensor, tau: float) -> None:
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f'logits of one shape expected: the student has {tuple(student_logits.shape)}, '
            f'the teacher {tuple(teacher_logits.shape)}'
        )
    if tau <= 0:
        raise ValueError(f'tau must be > 0, found {tau}')
