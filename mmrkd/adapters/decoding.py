"""From the outputs of a dense head to boxes in pixels, for whole batches and without a branch that a trace would lose.

mmdet predicts image by image and sorts out what is below a threshold by masks of unknown length. Here every step has a
fixed length, so that it can be written down as a graph; the numbers are the same.
"""

import math
from collections.abc import Sequence
from typing import Any, Callable

import torch
from torch import Tensor, nn

Decoder = Callable[[Tensor, Tensor, int], Tensor]
"""``(priors (..., 4 or 2), raw (..., D), level) -> corners (..., 4)``, in pixels."""


def decoder_of(head: nn.Module) -> Decoder:
    """Returns how a dense head turns what it regresses into boxes; they may lie outside of the image.

    Raises:
        ValueError: Its box coder is not one of those that are known here.
    """
    coder = type(getattr(head, 'bbox_coder', None)).__name__
    if coder == 'DeltaXYWHBBoxCoder':
        return _of_deltas(head.bbox_coder)
    if coder == 'DistancePointBBoxCoder' and hasattr(head, 'integral'):
        return _of_distributions(head)
    if coder == 'DistancePointBBoxCoder':
        return lambda points, raw, _level: _around(points, raw)
    raise ValueError(f'what a {coder} decodes to is not known here (DeltaXYWHBBoxCoder, DistancePointBBoxCoder are)')


def _of_deltas(coder: Any) -> Decoder:
    """Shift of the centre in sizes of the anchor, logarithm of the size."""
    means, stds = (torch.tensor(values, dtype=torch.float32) for values in (coder.means, coder.stds))
    largest = abs(math.log(16 / 1000))  # mmdet lets no size change by more

    def decode(anchors: Tensor, raw: Tensor, _level: int) -> Tensor:
        deltas = raw * stds.to(raw) + means.to(raw)
        size = anchors[..., 2:] - anchors[..., :2]
        shift, growth = size * deltas[..., :2], deltas[..., 2:]
        if coder.add_ctr_clamp:  # YOLOF
            shift, growth = shift.clamp(-coder.ctr_clamp, coder.ctr_clamp), growth.clamp(max=largest)
        else:
            growth = growth.clamp(-largest, largest)
        centre, half = (anchors[..., :2] + anchors[..., 2:]) * 0.5 + shift, size * growth.exp() * 0.5
        return torch.cat([centre - half, centre + half], dim=-1)

    return decode


def _of_distributions(head: nn.Module) -> Decoder:
    """Expected distances from the centre of the anchor, in strides (GFL)."""

    def decode(anchors: Tensor, raw: Tensor, level: int) -> Tensor:
        distances = head.integral(raw.reshape(-1, raw.shape[-1])).reshape(-1, *raw.shape[1:-1], 4)
        centre = (anchors[..., :2] + anchors[..., 2:]) * 0.5
        return _around(centre, distances * head.prior_generator.strides[level][0])

    return decode


def _around(points: Tensor, ltrb: Tensor) -> Tensor:
    return torch.cat([points - ltrb[..., :2], points + ltrb[..., 2:]], dim=-1)


def clipped(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Returns boxes ``(..., 4)`` cut off at the border of an image of ``(height, width)``."""
    x, y = boxes[..., 0::2].clamp(0, size[1]), boxes[..., 1::2].clamp(0, size[0])
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], dim=-1)


def rows(level: Tensor, columns: int) -> Tensor:
    """Turns ``(N, A * columns, H, W)`` into ``(N, H * W * A, columns)``, without asking for N."""
    channels, height, width = (int(length) for length in level.shape[1:])
    return level.permute(0, 2, 3, 1).reshape(-1, height * width * channels // columns, columns)


def take(values: Tensor, index: Tensor) -> Tensor:
    """Returns rows ``(N, k, D)`` of ``(N, P, D)`` by their numbers ``(N, k)``."""
    return values.gather(1, index[..., None].expand(-1, -1, int(values.shape[-1])))


def decoding_obstacle(model: nn.Module) -> str:
    """Why the detections of a model cannot be written as a graph; ``''`` if they can.

    What is known here is how mmdet's dense heads predict in common. A head that does one step in its own way, or a
    detector that does anything around its head, would be written wrongly.
    """
    from mmdet.models import GFLHead, SingleStageDetector
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead

    if getattr(model, 'roi_head', None) is not None:
        return 'its second stage looks at regions, whose number is not fixed'
    kind = type(model)
    if not isinstance(model, SingleStageDetector) or kind.predict is not SingleStageDetector.predict:
        return 'it does not predict as a single-stage detector with one dense head'
    head = model.bbox_head
    steps = ('predict', 'predict_by_feat', '_predict_by_feat_single', '_bbox_post_process')
    own = [step for step in steps if getattr(type(head), step, None) is not getattr(BaseDenseHead, step)]
    if own and not (own == ['_predict_by_feat_single'] and _is_gfl(head, GFLHead)):
        return f'its {type(head).__name__} has a {own[0]} of its own'
    if getattr(head.loss_cls, 'custom_cls_channels', False):
        return f'its {type(head.loss_cls).__name__} decides what a score is'
    if type(head.prior_generator).__name__ not in ('AnchorGenerator', 'SSDAnchorGenerator', 'MlvlPointGenerator'):
        return f'its priors are those of a {type(head.prior_generator).__name__}'
    try:
        decoder_of(head)
    except ValueError as error:
        return str(error)
    return _suppression_obstacle(head.test_cfg)


def _is_gfl(head: nn.Module, gfl: type) -> bool:
    return isinstance(head, gfl) and type(head)._predict_by_feat_single is gfl._predict_by_feat_single


def _suppression_obstacle(cfg: Any) -> str:
    nms = dict(cfg.get('nms') or {})
    kind = nms.pop('type', 'nms')
    unknown = set(nms) - {'iou_threshold', 'class_agnostic', 'split_thr', 'max_num'}
    if kind != 'nms' or 'iou_threshold' not in nms or unknown:
        return f"its test_cfg.nms is {cfg.get('nms')}: dict(type='nms', iou_threshold=...) is expected"
    return ''
