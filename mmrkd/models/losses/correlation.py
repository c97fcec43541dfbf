"""How far predictions of two classifiers correlate, by value and by rank: R2KD."""

from torch import Tensor

from mmrkd.models.losses.functional import _check_logits, _precise

FLOOR = 1e-8


def value_distance(z_s: Tensor, z_t: Tensor, tau: float) -> Tensor:
    r"""Correlation distance of probabilities, by sample and by class (R2KD, arXiv 2311.13934).

    .. math::
        \tau^2 \left[2 - \frac{1}{N} \sum_n e(p_{s,n,:}, p_{t,n,:}) - \frac{1}{K} \sum_k e(p_{s,:,k}, p_{t,:,k})\right]
        \qquad e(a, b) = \frac{|a \cdot b|}{|a| |b| + 10^{-8}}

    with :math:`p = softmax(z / \tau)`. Nothing is centred, and the absolute value is the release's. Because of the
    floor the distance of equal predictions is not exactly 0.

    Args:
        z_s: Logits of the student, ``(N, K)``. Gradients flow.
        z_t: Logits of the teacher, ``(N, K)``. Detached here.
        tau: Temperature > 0.

    Returns:
        A scalar >= 0.
    """
    _check_logits(z_s, z_t, tau)
    p_s, p_t = ((_precise(z) / tau).softmax(dim=1) for z in (z_s, z_t.detach()))
    return tau**2 * (2 - _cosine(p_s, p_t, 1).mean() - _cosine(p_s, p_t, 0).mean())


def rank_distance(z_s: Tensor, z_t: Tensor, width: float = 0.0) -> Tensor:
    r"""One minus the correlation of the ranks that two classifiers give to the classes of a sample, averaged (R2KD).

    .. math:: 1 - \frac{1}{N} \sum_n r(R(z_{s,n}), R(z_{t,n}))

    r is Pearson's correlation, so this is Spearman's of the predictions.

    Args:
        z_s: Logits of the student, ``(N, K)``. Gradients flow if ``width`` is not 0: places in an order have none.
        z_t: Logits of the teacher, ``(N, K)``. Detached here.
        width: Of :func:`soft_ranks`; 0 takes the places 1 .. K in ascending order. Defaults to 0.

    Returns:
        A scalar in [0, 2].
    """
    _check_logits(z_s, z_t, 1.0)
    ranks = [soft_ranks(z, width) if width else hard_ranks(z) for z in (z_s, z_t.detach())]
    a, b = (rank - rank.mean(dim=1, keepdim=True) for rank in ranks)
    return 1 - _cosine(a, b, 1, signed=True).mean()


def hard_ranks(z: Tensor) -> Tensor:
    """Returns the places 1 .. K of the classes of each sample in ascending order, ``(N, K)``; no gradient."""
    z = _precise(z.detach())
    return z.argsort(dim=1).argsort(dim=1).to(z) + 1


def soft_ranks(z: Tensor, width: float = 1.0) -> Tensor:
    r"""Ranks that have a gradient (ours).

    .. math:: R_i = \frac12 + \sum_j \sigma((z_i - z_j) / width)

    Args:
        z: Logits ``(N, K)``. Gradients flow.
        width: > 0; the nearer to 0, the nearer to the places 1 .. K.

    Returns:
        ``(N, K)``, between 1 and K.
    """
    z = _precise(z)
    return 0.5 + ((z[:, :, None] - z[:, None, :]) / width).sigmoid().sum(dim=2)


def _cosine(a: Tensor, b: Tensor, dim: int, signed: bool = False) -> Tensor:
    product = (a * b).sum(dim)
    return (product if signed else product.abs()) / (a.norm(dim=dim) * b.norm(dim=dim) + FLOOR)
