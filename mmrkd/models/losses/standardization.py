"""Logits in units of their own spread."""

from torch import Tensor, linalg

from mmrkd.models.losses.functional import _precise


def standardize_logits(logits: Tensor) -> Tensor:
    r"""Sun et al., `Logit Standardization in Knowledge Distillation` (arXiv 2403.01427).

    .. math:: z \mapsto (z - \mathrm{mean}_k z) / (\mathrm{std}_k z + 10^{-7})

    The standard deviation is the unbiased one, as in the release. What follows is blind to scale and shift of each
    sample's logits, so that a small student need not reach the range of its teacher. Where all logits are equal the
    result is 0; the gradient there is finite, which that of a square root is not.

    Args:
        logits: ``(N, K)``, at least two classes. Gradients flow.

    Returns:
        ``(N, K)``, in float32 at least.

    Raises:
        ValueError: There is one class only, which has no spread.
    """
    if logits.shape[1] < 2:
        raise ValueError(f'logits of at least two classes expected, found the shape {tuple(logits.shape)}')
    centred = _precise(logits)
    centred = centred - centred.mean(dim=1, keepdim=True)
    std = linalg.vector_norm(centred, dim=1, keepdim=True) / (logits.shape[1] - 1) ** 0.5
    return centred / (std + 1e-7)
