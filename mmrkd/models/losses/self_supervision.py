"""What a contrastive head sees in turned images, and whose knowledge is good enough to be handed over: SSKD."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmrkd.models.losses.functional import _precise


def turned_similarities(turned: Tensor, originals: Tensor) -> Tensor:
    r"""Cosines between what a head makes of turned images and of the originals (SSKD, arXiv 2006.07114, Eq. 1).

    .. math:: S_{ij} = \cos(\tilde g_i, g_j)

    Args:
        turned: ``(M, D)``, M a multiple of N. Gradients flow.
        originals: ``(N, D)``. Gradients flow.

    Returns:
        ``(M, N)`` in [-1, 1].
    """
    with torch.autocast(turned.device.type, enabled=False):  # which would round a product of matrices
        return F.normalize(_precise(turned), dim=1) @ F.normalize(_precise(originals), dim=1).T


def kept_rows(scores: Tensor, targets: Tensor, ratio: float) -> Tensor:
    """Chooses the rows of which a teacher knows enough (SSKD, selective transfer).

    Kept are those in which the target ranks first, and of the others the share whose target ranks best. Of equal ranks
    the earlier rows are kept: the order is stable, which the release's is not.

    Args:
        scores: The teacher's scores, ``(M, K)``: logits, or similarities.
        targets: The true column of each row, ``(M,)``.
        ratio: Share of the wrong ones that is kept, in [0, 1]; of W rows ``int(W * ratio)``.

    Returns:
        Boolean ``(M,)``.
    """
    order = torch.argsort(scores.detach(), dim=1, descending=True, stable=True)
    rank = (order == targets[:, None]).int().argmax(dim=1)
    place = torch.argsort(torch.argsort(rank, stable=True))  # of each row among all, the right ones first
    wrong = (rank > 0).sum()
    kept = len(rank) - wrong + (wrong.double() * ratio).long()
    return place < kept
