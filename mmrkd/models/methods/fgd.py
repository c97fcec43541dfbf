"""FGD: focal and global knowledge distillation."""

from collections.abc import Sequence
from typing import Literal, Optional

import torch
from torch import Tensor, nn

from mmrkd.models.losses import focal_masks, focal_terms, squared_error
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.methods.numbers import require_positive, require_weights
from mmrkd.models.necks import GlobalContext, Projection
from mmrkd.registry import MODELS
from mmrkd.structures import StudentView, TeacherView


@MODELS.register_module()
class FGD(DistillMethod):
    r"""Yang et al., `Focal and Global Knowledge Distillation for Detectors` (arXiv 2111.11837).

    .. math:: L = \sum_l \alpha L_{fg}^l + \beta L_{bg}^l + \gamma L_{at}^l + \lambda L_{re}^l, \qquad
        L_{re}^l = \frac{1}{N} \sum \left(R_s^l(P^l(f_s^l)) - R_t^l(f_t^l)\right)^2

    The focal terms (:func:`~mmrkd.models.losses.focal_terms`) weigh the error of a cell by the teacher's attention and,
    apart for foreground and background, by the size of the box that covers it. The relation term compares the features
    with the context of the whole image added (:class:`~mmrkd.models.necks.GlobalContext`); each level has two such
    blocks, and that of the teacher's side is trained, too (as released). Levels are summed.

    The release scales boxes by the image onto a map that covers the padded batch, so that the masks of every padded
    image are stretched; here (ours) boxes are divided by the stride, and ``box_grid='image'`` reproduces the release. P
    is a 1x1 convolution for each level whose widths differ, as released.

    Gradient contract: flows into the student, P and both blocks; the teacher's features and the weights of the errors
    are detached, the student's attention is trained by :math:`L_{at}` alone.

    Args:
        w_fg: alpha. Defaults to 1e-3, released for RetinaNet and GFL (1.6e-3 RepPoints, FCOS; 5e-5 two stages).
        w_bg: beta. Defaults to 5e-4 (8e-4; 2.5e-5).
        w_attention: gamma. Defaults to 5e-4, as in the released configs (8e-4; 5e-5).
        w_relation: lambda. Defaults to 5e-6 (8e-6; 5e-7).
        temp: Temperature of the attention. Defaults to 0.5 (FCOS 0.8).
        levels: How many of the matched levels, finest first, are compared; ``None``: all. Defaults to None; 4 is the
            released value for two-stage detectors.
        box_grid: ``'stride'`` or ``'image'``, see above.

    Raises:
        ValueError: An argument is out of range, or the models are no detectors.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> method = MODELS.build(dict(type='mmrkd.FGD', w_fg=1.6e-3, temp=0.8, levels=4))
        >>> method.temp, method.levels
        (0.8, 4)

        Each object has a weight of 1, however large it is, and the background has one, too:

        >>> import torch
        >>> from mmrkd.models.losses import focal_masks
        >>> foreground, background = focal_masks([torch.tensor([[0.0, 0.0, 1.0, 1.0]])], (4, 4))
        >>> foreground[0, :2, :2]
        tensor([[0.2500, 0.2500],
                [0.2500, 0.2500]])
        >>> round(background.sum().item(), 4)
        1.0
    """

    weights = {
        'w_fg': 'loss_fg',
        'w_bg': 'loss_bg',
        'w_attention': 'loss_attention',
        'w_relation': 'loss_relation',
    }
    compares_classes = False

    def __init__(
        self,
        w_fg: float = 1e-3,
        w_bg: float = 5e-4,
        w_attention: float = 5e-4,
        w_relation: float = 5e-6,
        temp: float = 0.5,
        levels: Optional[int] = None,
        box_grid: Literal['stride', 'image'] = 'stride',
    ) -> None:
        super().__init__()
        require_weights('FGD', w_fg=w_fg, w_bg=w_bg, w_attention=w_attention, w_relation=w_relation)
        require_positive('FGD', temp=temp, levels=1 if levels is None else levels)
        if box_grid not in ('stride', 'image'):
            raise ValueError(f"FGD: box_grid must be 'stride' or 'image', found {box_grid!r}")
        self.w_fg, self.w_bg, self.w_attention, self.w_relation = w_fg, w_bg, w_attention, w_relation
        self.temp, self.levels, self.box_grid = temp, levels, box_grid

    def setup(self, pair: Pair) -> None:
        """Builds P where the widths differ, and the blocks of the relation term."""
        pair.require_detectors('FGD')
        match = pair.match
        widths = match.student_channels[: self.levels], match.teacher_channels[: self.levels]
        self.strides = [match.student_levels[s].stride for s, _ in match.pairs]
        self.projection = Projection(*widths, per_level=True, always=False)
        related = widths[1] if self.w_relation else []  # nothing that is never trained
        self.student_contexts = nn.ModuleList(GlobalContext(width) for width in related)
        self.teacher_contexts = nn.ModuleList(GlobalContext(width) for width in related)

    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_fg``, ``loss_bg``, ``loss_attention`` and, with its weight, ``loss_relation``."""
        feats, targets = self.projection(student.feats[: self.levels]), teacher.feats[: self.levels]
        terms = []
        for f, t, stride in zip(feats, targets, self.strides):
            masks = focal_masks(self._boxes_in_cells(samples, f.shape[2:], stride), f.shape[2:])
            terms.append(torch.stack(focal_terms(f, t, *masks, self.temp)))
        fg, bg, attention = torch.stack(terms).sum(dim=0)
        losses = dict(loss_fg=self.w_fg * fg, loss_bg=self.w_bg * bg, loss_attention=self.w_attention * attention)
        if self.w_relation:
            blocks = zip(self.student_contexts, self.teacher_contexts, feats, targets)
            losses['loss_relation'] = self.w_relation * sum(_relation(*level) for level in blocks)
        return losses

    def _boxes_in_cells(self, samples: Sequence, size: Sequence[int], stride: int) -> list[Tensor]:
        """Ground truth of each image in cells of one level."""
        boxes = [instances.bboxes for instances in self.pair.student.targets(samples)]
        boxes = [getattr(b, 'tensor', b) for b in boxes]
        if self.box_grid == 'stride':
            return [b / stride for b in boxes]
        scales = [(size[1] / sample.img_shape[1], size[0] / sample.img_shape[0]) for sample in samples]
        return [b * b.new_tensor(scale * 2) for b, scale in zip(boxes, scales)]


def _relation(own: nn.Module, other: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    """Relation term of one level. The teacher's block is trained, so its output is no constant."""
    return squared_error(own(student), other(teacher.detach()))
