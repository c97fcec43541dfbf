"""FGD: foreground, background and attention."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmrkd.models.losses.functional import _precise
from mmrkd.models.losses.shapes import check_maps


def focal_terms(
    student: Tensor, teacher: Tensor, mask_fg: Tensor, mask_bg: Tensor, temp: float
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Focal distillation of one level (Yang et al., arXiv 2111.11837, Eq. 8 and 9), without weights.

    .. math::
        L_{fg} &= \frac{1}{N} \sum_{n,c,p} M^{fg}_{n,p} A^S_{n,p}(f_t) A^C_{n,c}(f_t) (f_s - f_t)_{n,c,p}^2 \\
        L_{at} &= \frac{1}{N} \Big(\sum |A^C(f_s) - A^C(f_t)| + \sum |A^S(f_s) - A^S(f_t)|\Big)

    :math:`L_{bg}` is :math:`L_{fg}` with the other mask. The attention of an image is a softmax of mean absolute
    values, :math:`A^S = H W \, \mathrm{softmax}_p(\mathrm{mean}_c |f| / T)` and
    :math:`A^C = C \, \mathrm{softmax}_c(\mathrm{mean}_p |f| / T)`.

    Gradient contract: masks and the teacher's attention are constants; the student's attention is trained by
    :math:`L_{at}` alone.

    Args:
        student: ``(N, C, H, W)``. Gradients flow.
        teacher: ``(N, C, H, W)``. Detached here.
        mask_fg: ``(N, H, W)``, weight of each cell of the foreground, 0 elsewhere, see :func:`focal_masks`.
        mask_bg: ``(N, H, W)``, weight of each cell of the background, 0 elsewhere.
        temp: T > 0.

    Returns:
        Three scalars >= 0: foreground, background and attention.

    Raises:
        ValueError: The shapes differ, or T is not positive.
    """
    check_maps(student, teacher)
    if temp <= 0:
        raise ValueError(f'temp must be > 0, found {temp}')
    f_s, f_t = _precise(student), _precise(teacher.detach())
    (space_s, channel_s), (space_t, channel_t) = (_attention(f, temp) for f in (f_s, f_t))
    n, _, height, width = f_s.shape
    errors = ((f_s - f_t).square() * channel_t[:, :, None, None]).sum(dim=1) * space_t
    fg, bg = ((errors * mask.detach().reshape(n, height, width)).sum() / n for mask in (mask_fg, mask_bg))
    return fg, bg, ((channel_s - channel_t).abs().sum() + (space_s - space_t).abs().sum()) / n


def focal_masks(boxes: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    r"""Weight of each cell: 1 / (cells of the smallest box that covers it), and 1 / (cells of the background).

    A box covers the cells from ``floor(x1)`` to ``ceil(x2)`` inclusive, rows likewise; its cells are counted before it
    is clipped to the map (both as the release does). An image without boxes is background everywhere.

    Args:
        boxes: ``(G_n, 4)`` of each image as x1, y1, x2, y2, in cells.
        size: ``(H, W)``.

    Returns:
        Masks ``(N, H, W)`` of the foreground and of the background.
    """
    masks = [_foreground(own.detach(), size) for own in boxes]
    fg = torch.stack(masks)
    bg = (fg == 0).to(fg)
    return fg, bg / bg.sum(dim=(1, 2), keepdim=True).clamp(min=1)


def _foreground(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """The mask of one image ``(H, W)``, without a loop over its boxes."""
    boxes = _precise(boxes)
    if not len(boxes):
        return boxes.new_zeros(size)
    first, last = boxes[:, :2].floor(), boxes[:, 2:].ceil()
    area = (last - first + 1).prod(dim=1)
    inside = []
    for axis, cells in ((1, size[0]), (0, size[1])):
        cell = torch.arange(cells, device=boxes.device)
        inside.append((cell >= first[:, axis, None]) & (cell <= last[:, axis, None]))
    covered = inside[0][:, :, None] & inside[1][:, None, :]  # (G, H, W)
    return (covered / area[:, None, None]).amax(dim=0)


def _attention(feat: Tensor, temp: float) -> tuple[Tensor, Tensor]:
    """Attention of each image to its positions ``(N, H, W)`` and to its channels ``(N, C)``."""
    n, c, height, width = feat.shape
    space = (feat.abs().mean(dim=1).flatten(1) / temp).softmax(dim=1) * (height * width)
    return space.reshape(n, height, width), (feat.abs().mean(dim=(2, 3)) / temp).softmax(dim=1) * c
