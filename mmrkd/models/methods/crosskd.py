"""CrossKD: the teacher's head goes on from the student's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrkd.adapters import ModelAdapter
from mmrkd.adapters.assigned import AssignedTargets, averaged
from mmrkd.adapters.branches import BRANCHES, branch_taps, branch_widths, resumed
from mmrkd.models.losses import align_statistics, box_kl, box_overlaps, quality_focal
from mmrkd.models.methods.base import DistillMethod, Pair
from mmrkd.models.methods.numbers import require_positive, require_weights
from mmrkd.models.necks import Projection
from mmrkd.registry import MODELS
from mmrkd.structures import StudentView, TeacherView

Maps = Mapping[str, Sequence[Tensor]]


@dataclass(frozen=True)
class Recipe:
    """What the release does for one head. ``by_centerness``: FCOS's divisor, and the logarithm of the plain IoU."""

    layer: int = 3
    w_cls: float = 1.0
    w_reg: float = 1.0
    w_centerness: float = 0.0
    by_centerness: bool = False


RECIPES = {
    'GFLHead': Recipe(w_reg=4.0),
    'RetinaHead': Recipe(),
    'ATSSHead': Recipe(w_centerness=1.0),
    'FCOSHead': Recipe(layer=2, w_cls=0.4, w_reg=0.75, by_centerness=True),
}


@MODELS.register_module()
class CrossKD(DistillMethod):
    r"""Wang et al., `CrossKD: Cross-Head Knowledge Distillation for Object Detection` (arXiv 2306.11369).

    .. code:: text

        student's neck ── conv 1..i ─┬─ conv i+1.. ── own predictions ── ground truth
                                     └─ P ── align ── ReLU ── teacher's conv i+1.. (frozen) ── c~, b~ ── mimic c_t, b_t
        teacher's neck ── conv 1..i ── conv i+1.. ── c_t, b_t

    .. math::
        L_{cls} = \frac{w_c}{a} \sum_{p,k} l_p |\sigma(\tilde c) - \sigma(c_t)| \mathrm{BCE}(\tilde c, \sigma(c_t))

    The features of the student's head are taken behind its i-th convolution, before the activation, given the
    teacher's statistics (:func:`~mmrkd.models.losses.align_statistics`) and sent through the rest of the teacher's
    frozen head; what comes out mimics the teacher's predictions. Ground truth and teacher so pull at different
    outputs. l are the label weights of the student's own assigner, a the number of its positives. The boxes of all
    predictions count, each by the teacher's highest score :math:`s` (0 where l is 0):

    - GFL: :math:`w_r \sum s\, d / \sum s`, d the divergence of the distributions (:func:`~mmrkd.models.losses.box_kl`);
    - RetinaNet, ATSS: :math:`w_r \sum s (1 - \mathrm{GIoU}) / a`; ATSS also BCE of the centerness at positives, over a;
    - FCOS: :math:`-w_r \sum s \log \mathrm{IoU} / a`, a the sum of its centerness targets and l = 1.

    All this is as released, where a detector is copied for each family; other heads are refused by name. Ours: the
    divisor of GFL is averaged over the processes; P, a 1x1 convolution for each branch, only where the widths of the
    heads differ. The student's own losses stay as they are.

    Gradient contract: flows through the teacher's head into P and the student below the tap; the teacher's weights,
    features and predictions are detached.

    Args:
        layer: i; 0 takes the features of the neck, without a ReLU. Defaults to 3 (of 4); FCOS 2.
        w_cls: w_c. Defaults to 1; FCOS 0.4.
        w_reg: w_r. Defaults to 1; GFL 4; FCOS 0.75.
        w_centerness: Weight of ATSS's centerness. Defaults to 1; 0 for the others.
        tau: Temperature of GFL's distributions. Defaults to 1.

    Raises:
        ValueError: An argument is out of range, a head is not one of those above, or the heads do not line up.

    Examples:
        >>> from mmrkd.registry import MODELS
        >>> method = MODELS.build(dict(type='mmrkd.CrossKD', layer=3))
        >>> method.reads_targets, method.w_cls  # None: that of the family
        (True, None)

        The student's features arrive in the teacher's head with the statistics that it is used to:

        >>> import torch
        >>> from mmrkd.models.losses import align_statistics
        >>> teacher = torch.rand(2, 3, 4, 4)
        >>> bool(((align_statistics(5 * teacher - 1, teacher) - teacher).abs() < 1e-4).all())
        True
    """

    weights = {'w_cls': 'loss_cls', 'w_reg': 'loss_reg', 'w_centerness': 'loss_centerness'}
    reads_targets = True

    def __init__(
        self,
        layer: Optional[int] = None,
        w_cls: Optional[float] = None,
        w_reg: Optional[float] = None,
        w_centerness: Optional[float] = None,
        tau: float = 1.0,
    ) -> None:
        super().__init__()
        require_weights('CrossKD', w_cls=w_cls or 0.0, w_reg=w_reg or 0.0, w_centerness=w_centerness or 0.0)
        require_positive('CrossKD', tau=tau)
        if layer is not None and layer < 0:
            raise ValueError(f'CrossKD: layer must be >= 0, found layer={layer}')
        self.layer, self.w_cls, self.w_reg, self.w_centerness, self.tau = layer, w_cls, w_reg, w_centerness, tau

    def setup(self, pair: Pair) -> None:
        """Fills in the defaults of the head, finds the convolutions and builds P where the widths differ."""
        self.recipe = _recipe(pair)
        for name in ('layer', 'w_cls', 'w_reg', 'w_centerness'):
            setattr(self, name, getattr(self.recipe, name) if getattr(self, name) is None else getattr(self, name))
        if self.w_centerness and not self.recipe.w_centerness:
            raise ValueError(f'CrossKD: a {type(pair.student.head).__name__} has no w_centerness, only ATSS does')
        pair.require_same_classes('CrossKD')
        pair.require_same_layout('CrossKD')
        pair.require_same_pixels('CrossKD')
        adapters = pair.student, pair.teacher.adapter
        if self.layer:
            self.taps, self.teacher_taps_of_head = (branch_taps(adapter, self.layer) for adapter in adapters)
            self.student_calls = tuple(self.taps.values())
            widths = [branch_widths(adapter, self.layer) for adapter in adapters]
            widths = {branch: [[w[branch]] for w in widths] for branch in BRANCHES}
        else:
            widths = {'neck': (pair.match.student_channels, pair.match.teacher_channels)}
        self.projections = nn.ModuleDict({name: Projection(*w, always=False) for name, w in widths.items()})

    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns ``loss_cls``, ``loss_reg`` and, of ATSS, ``loss_centerness``."""
        adapter, assigned = self.pair.student, student.assigned
        if assigned is None:
            raise ValueError(f'CrossKD found no assigned targets in the losses of {type(adapter.head).__name__}')
        outputs, targets = self._crossed(student, teacher)
        logits, target_logits = (torch.cat(adapter.class_scores(o)) for o in (outputs, targets))
        weights = torch.cat(assigned.label_weights)
        divisor = assigned.num_pos
        if self.recipe.by_centerness:
            weights, divisor = torch.ones_like(weights), _centerness_sum(assigned, adapter.num_classes)
        scores = target_logits.sigmoid().amax(dim=1) * (weights > 0)
        losses = {
            'loss_cls': self.w_cls * quality_focal(logits, target_logits, weights, divisor),
            'loss_reg': self.w_reg * self._boxes(outputs, targets, scores, divisor),
        }
        if self.recipe.w_centerness:
            losses['loss_centerness'] = self.w_centerness * _centerness(adapter, outputs, targets, assigned)
        return losses

    def _crossed(self, student: StudentView, teacher: TeacherView) -> tuple[Any, Any]:
        """Outputs of the teacher's head for the student's features, and for its own."""
        model, adapter = self.pair.teacher, self.pair.teacher.adapter
        if not self.layer:
            own = self.projections['neck'](student.feats)
            feats = [align_statistics(s, t) for s, t in zip(own, teacher.feats)]
            feats = {t: f for (_, t), f in zip(self.pair.match.pairs, feats)}
            return adapter.training_outputs(adapter.replace(teacher.all_feats, feats)), teacher.outputs
        with adapter.tapped(tuple(self.teacher_taps_of_head.values()), every=True) as calls:
            targets = model.outputs(teacher.all_feats)
        with resumed(adapter.head, self.layer, self._aligned(student.calls, calls)):
            return adapter.training_outputs(teacher.all_feats), targets

    def _aligned(self, student: Maps, teacher: Maps) -> Maps:
        """The student's maps of each branch with the teacher's width and statistics, level by level."""
        maps = {}
        for branch in BRANCHES:
            own, others = student[self.taps[branch]], teacher[self.teacher_taps_of_head[branch]]
            own = [self.projections[branch]([level])[0] for level in own]
            maps[branch] = [align_statistics(s, t) for s, t in zip(own, others)]
        return maps

    def _boxes(self, outputs: Any, targets: Any, scores: Tensor, divisor: Tensor) -> Tensor:
        adapter = self.pair.student
        if adapter.box_bins > 1:
            boxes, target_boxes = (torch.cat(adapter.boxes(o)) for o in (outputs, targets))
            sides = box_kl(boxes, target_boxes, adapter.box_bins, self.tau, 'sum')
            return (scores * sides).sum() / scores.sum().clamp(min=1e-6)
        boxes, target_boxes = (torch.cat(adapter.corners(o)) for o in (outputs, targets))
        iou, giou = box_overlaps(boxes, target_boxes)
        errors = -iou.clamp(min=1e-6).log() if self.recipe.by_centerness else 1 - giou
        return (scores * errors).sum() / divisor


def _recipe(pair: Pair) -> Recipe:
    """What the release does for the student's head.

    Raises:
        ValueError: It does nothing for it, or the teacher has another head.
    """
    names = [type(adapter.head).__name__ for adapter in (pair.student, pair.teacher.adapter)]
    for who, name, adapter in zip(('student', 'teacher'), names, (pair.student, pair.teacher.adapter)):
        if name not in RECIPES or not getattr(adapter, 'assigns', False):
            raise ValueError(
                f"CrossKD sends features through the middle of the teacher's head, which it can for "
                f'{", ".join(RECIPES)}, but the {who} has a {name}. Take PKD, or a pair with one of these heads.'
            )
    if names[0] != names[1]:
        raise ValueError(f'CrossKD needs one kind of head, but the student has a {names[0]}, the teacher a {names[1]}')
    return RECIPES[names[0]]


def _positive(assigned: AssignedTargets, num_classes: int) -> Tensor:
    labels = torch.cat(assigned.labels)
    return (labels >= 0) & (labels < num_classes)


def _centerness(adapter: ModelAdapter, outputs: Any, targets: Any, assigned: AssignedTargets) -> Tensor:
    """BCE of the centerness at positives, over their number."""
    positive = _positive(assigned, adapter.num_classes)
    own, others = (torch.cat(adapter.factors(o)).float() for o in (outputs, targets))
    terms = F.binary_cross_entropy_with_logits(own, others.detach().sigmoid(), reduction='none')
    return (terms * positive).sum() / assigned.num_pos  # to pick the positives would wait for the device


def _centerness_sum(assigned: AssignedTargets, num_classes: int) -> Tensor:
    """Sum of the centerness of the positives of FCOS, averaged over the processes."""
    ltrb = torch.cat(assigned.box_targets).float()
    ratios = [torch.minimum(a, b) / torch.maximum(a, b) for a, b in (ltrb[:, ::2].unbind(1), ltrb[:, 1::2].unbind(1))]
    centerness = (ratios[0] * ratios[1]).sqrt()  # of the background it may be anything
    return averaged(centerness.where(_positive(assigned, num_classes), 0).sum()).clamp(min=1e-6)
