"""What the outputs of mmdet's dense heads mean, declared head by head.

A head that is not in the table, and derives from none that is, is not compared with another one: what its outputs
mean would be a guess.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional, Union

from torch import Tensor, nn

from mmrkd.adapters import box_forms as forms

Parts = tuple[Sequence[Tensor], Sequence[Tensor], Optional[Sequence[Tensor]]]  # scores, boxes, factors: over levels


@dataclass(frozen=True)
class HeadReading:
    """How to read the outputs of a dense head.

    Attributes:
        boxes: Head -> form of its boxes, or why they cannot be compared.
        box: Which output holds the boxes.
        factor: Which output (a logit) multiplies the score; ``None``: the score stands alone.
        geometric: Whether the score is the square root of that product.
        probabilities: Whether scores are given as probabilities and not as logits.
        independent: Whether classes are; ``None``: the head says so (``use_sigmoid_cls``).
        assigns: Whether labels that ``get_targets`` returns are the ones that the loss uses.
        parts: Outputs -> scores, boxes, factors, where they do not stand one beside the other.
    """

    boxes: Callable[[nn.Module], Union[forms.BoxForm, str]]
    box: int = 1
    factor: Optional[int] = None
    geometric: bool = False
    probabilities: bool = False
    independent: Optional[bool] = None
    assigns: bool = True
    parts: Optional[Callable[[nn.Module, Any], Parts]] = None

    def split(self, head: nn.Module, outputs: Any) -> Parts:
        """Returns scores ``(N, A * K, H, W)``, boxes ``(N, A * 4 * bins, H, W)`` and factors ``(N, A, H, W)``."""
        if self.parts is not None:
            return self.parts(head, outputs)
        return outputs[0], outputs[self.box], None if self.factor is None else outputs[self.factor]

    def describe(self, head: nn.Module) -> dict[str, str]:
        """Scores and unit of the boxes in words: they must be the same for two heads that are compared."""
        scores = 'probabilities' if self.probabilities else 'logits'
        if self.factor is not None:
            scores += ', square root of a product' if self.geometric else ', product of two'
        form = self.boxes(head)
        return {'scores': scores, 'boxes': 'not compared' if isinstance(form, str) else form.unit}


def _of_coder(head: nn.Module) -> Union[forms.BoxForm, str]:
    """Form of the boxes of a head with anchors, which its coder decides."""
    coder = type(getattr(head, 'bbox_coder', None)).__name__
    if getattr(head.bbox_coder, 'encode_size', 4) != 4:
        return f'it regresses {head.bbox_coder.encode_size} values for each box ({coder})'
    if coder in ('DeltaXYWHBBoxCoder', 'LegacyDeltaXYWHBBoxCoder'):
        return forms.deltas(head)
    if coder == 'TBLRBBoxCoder':
        return forms.distances_of_prior(head)
    return f'what the boxes of a {coder} mean is not declared'


def _yolo_v3(head: nn.Module, outputs: Any) -> Parts:
    """One map for each level holds four values of the box, the objectness and the classes, anchor by anchor."""
    scores, boxes, factors = [], [], []
    for level in outputs[0]:
        n, _, height, width = level.shape
        grouped = level.reshape(n, -1, head.num_attrib, height, width)
        boxes.append(grouped[:, :, :4].reshape(n, -1, height, width))
        factors.append(grouped[:, :, 4])
        scores.append(grouped[:, :, 5:].reshape(n, -1, height, width))
    return scores, boxes, factors


def _fcos(head: nn.Module) -> forms.BoxForm:
    return forms.distances(head, 'strides' if head.norm_on_bbox else 'pixels')


_ANCHORS = HeadReading(_of_coder)
_PAA = HeadReading(_of_coder, factor=2, geometric=True, assigns=False)
_HEADS = 'mmdet.models.dense_heads.'
READINGS: dict[str, Optional[HeadReading]] = {
    _HEADS + 'anchor_head.AnchorHead': _ANCHORS,  # RetinaNet, SSD, YOLOF, YOLACT, FreeAnchor, RPN, ...
    _HEADS + 'fsaf_head.FSAFHead': HeadReading(_of_coder, assigns=False),  # it chooses the level afterwards
    _HEADS + 'atss_head.ATSSHead': HeadReading(_of_coder, factor=2),
    _HEADS + 'atss_vlfusion_head.ATSSVLFusionHead': None,  # scores of words
    _HEADS + 'ddod_head.DDODHead': HeadReading(_of_coder, factor=2),
    _HEADS + 'paa_head.PAAHead': _PAA,
    _HEADS + 'gfl_head.GFLHead': HeadReading(forms.distributions),
    _HEADS + 'tood_head.TOODHead': HeadReading(forms.corners, probabilities=True),
    _HEADS + 'rtmdet_head.RTMDetHead': HeadReading(lambda head: forms.distances(head, 'pixels')),
    _HEADS + 'vfnet_head.VFNetHead': HeadReading(lambda head: forms.distances(head, 'pixels'), box=-1),
    _HEADS + 'fcos_head.FCOSHead': HeadReading(_fcos, factor=2),
    _HEADS + 'autoassign_head.AutoAssignHead': HeadReading(
        lambda head: forms.distances(head, 'pixels'), factor=2, assigns=False
    ),
    _HEADS + 'centernet_update_head.CenterNetUpdateHead': HeadReading(
        lambda head: forms.distances(head, 'strides'), assigns=False
    ),
    _HEADS + 'fovea_head.FoveaHead': HeadReading(
        lambda head: forms.distances(head, 'base lengths', logarithmic=True), assigns=False
    ),
    _HEADS + 'reppoints_head.RepPointsHead': HeadReading(
        lambda head: 'it regresses points, which are no boxes', assigns=False
    ),
    _HEADS + 'yolox_head.YOLOXHead': HeadReading(forms.centres, factor=2, independent=True, assigns=False),
    _HEADS + 'yolo_head.YOLOV3Head': HeadReading(
        lambda head: forms.centres(head, sigmoid=True), factor=2, independent=True, assigns=False, parts=_yolo_v3
    ),
}


def reading_of(head: nn.Module, readings: dict[str, Optional[HeadReading]]) -> Optional[HeadReading]:
    """Returns how to read a head: what is declared for the most specific class above it; ``None`` if nothing is."""
    for base in type(head).__mro__:
        name = f'{base.__module__}.{base.__qualname__}'
        if name in readings:
            return readings[name]
    return None
