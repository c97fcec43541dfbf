"""Relations between predictions: DIST."""

import torch
from torch import Tensor

from mmrkd.models.losses.functional import _check_logits, _precise

EPS = 1e-8


def relation_distance(z_s: Tensor, z_t: Tensor, tau: float = 1.0, sigmoid: bool = False) -> tuple[Tensor, Tensor]:
    r"""The two terms of DIST (Huang et al., `Knowledge Distillation from A Stronger Teacher`, arXiv 2205.10536).

    .. math::
        inter = \tau^2 \left(1 - \mathrm{mean}_n\, r(p_s[n, :], p_t[n, :])\right) \qquad
        intra = \tau^2 \left(1 - \mathrm{mean}_k\, r(p_s[:, k], p_t[:, k])\right)

        r(a, b) = \frac{\langle a - \bar a, b - \bar b \rangle}{|a - \bar a| |b - \bar b| + 10^{-8}}

    p is the softmax, or the sigmoid, of :math:`z / \tau`; the factor and the :math:`10^{-8}` are the release's. The
    :math:`10^{-8}` belongs to the method: a class that no sample of the batch likes has a column of tiny norm, which
    then hardly counts. So ``intra`` is 0 at equal predictions only where the columns vary, and 0.9 where all
    predictions are sure.

    A term that has nothing to correlate (``intra`` of one row, ``inter`` of one column) would be the constant
    :math:`\tau^2`; it is 0 here (ours).

    Args:
        z_s: Logits of the student, ``(N, K)``. Gradients flow.
        z_t: Logits of the teacher, ``(N, K)``. Detached here.
        tau: Temperature > 0. Defaults to 1.
        sigmoid: Whether scores are independent. Defaults to False.

    Returns:
        ``inter`` (between the classes of a sample) and ``intra`` (between the samples of a class), scalars in
        [0, 2 tau^2].

    Raises:
        ValueError: Shapes differ.
    """
    _check_logits(z_s, z_t, tau)
    student, teacher = (_precise(z) / tau for z in (z_s, z_t.detach()))
    p_s, p_t = (z.sigmoid() if sigmoid else z.softmax(dim=1) for z in (student, teacher))
    inter, intra = ((1 - _correlation(p_s, p_t, dim).mean()) * tau**2 for dim in (1, 0))
    return inter if z_s.shape[1] > 1 else 0 * inter, intra if z_s.shape[0] > 1 else 0 * intra


def _correlation(a: Tensor, b: Tensor, dim: int) -> Tensor:
    a, b = (x - x.mean(dim=dim, keepdim=True) for x in (a, b))
    norms = torch.linalg.vector_norm(a, dim=dim) * torch.linalg.vector_norm(b, dim=dim)
    return (a * b).sum(dim=dim) / (norms + EPS)
