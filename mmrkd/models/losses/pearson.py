"""PKD: Pearson's correlation of features."""

from torch import Tensor

from mmrkd.models.losses.functional import _precise

EPS = 1e-6  # added to a deviation


def pearson_distance(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Half the squared error of standardised features of one level (Cao et al., arXiv 2207.02039, Eq. 4).

    .. math::
        \frac{1}{2} \mathrm{mean}\left[(s(f_s) - s(f_t))^2\right], \qquad
        s(f)_{n,c,p} = \frac{f_{n,c,p} - \mathrm{mean}_c}{\mathrm{std}_c + 10^{-6}}

    Mean and (unbiased) deviation of a channel are those of its m = N H W values in this batch, so with Pearson's
    :math:`r_c` this is :math:`\frac{m - 1}{m} \mathrm{mean}_c (1 - r_c)`: blind to the scale and the offset of each
    channel. Padded cells count. In both models each channel has its statistics from its own features, of the local
    batch.

    Args:
        student: ``(N, C, H, W)``, or ``(N, C)``. Gradients flow.
        teacher: Same shape. Detached here.

    Returns:
        A scalar >= 0. With one value in a channel nothing can be correlated: 0, without a gradient (the release: NaN).

    Raises:
        ValueError: The shapes differ.
    """
    if student.shape != teacher.shape or student.dim() not in (2, 4):
        raise ValueError(
            f'features (N, C, H, W) or (N, C) of one shape expected: the student has {tuple(student.shape)}, '
            f'the teacher {tuple(teacher.shape)}'
        )
    if student.numel() == student.shape[1]:
        return _precise(student).sum() * 0
    return (_standardised(student) - _standardised(teacher.detach())).square().mean() / 2


def _standardised(feat: Tensor) -> Tensor:
    values = _precise(feat).transpose(0, 1).flatten(1)  # (C, m)
    return (values - values.mean(dim=1, keepdim=True)) / (values.std(dim=1, keepdim=True) + EPS)
