"""What the second stage of a detector says of regions: those that the student sampled, told by student and teacher."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Optional

from torch import Tensor, nn

from mmrkd.adapters.assigned import kept_targets
from mmrkd.adapters.reuse import hiding


@dataclass(frozen=True)
class Regions:
    """The regions that one second stage learned from in a step.

    Attributes:
        rois: ``(R, 5)``: index of the image, x1, y1, x2, y2 in pixels of the batch. Detached.
        logits: ``(R, K + 1)``, the background last. Gradients flow.
        labels: ``(R,)``, K stands for the background.
    """

    rois: Tensor
    logits: Tensor
    labels: Tensor


def region_obstacle(model: nn.Module) -> Optional[str]:
    """Returns why a detector has no scores of regions that can be compared; ``None`` if it has.

    Of a cascade the first stage is meant: the later ones move the regions.
    """
    if getattr(model, 'roi_head', None) is None:
        return f'{type(model).__name__} has no second stage'
    head, stages = _first(model)
    forward = getattr(model.roi_head, '_bbox_forward', None)
    needed = [p for p in inspect.signature(forward).parameters.values() if p.default is p.empty] if forward else []
    if len(needed) != 2 + stages or getattr(model.roi_head, 'with_semantic', False):
        return f'{type(model.roi_head).__name__} scores regions by more than their features'
    loss = getattr(head, 'loss_cls', None)
    if loss is None or getattr(loss, 'use_sigmoid', False) or getattr(loss, 'custom_cls_channels', False):
        return f'{type(head).__name__} of {type(model.roi_head).__name__} has no softmax over classes and background'
    return None


def region_logits(model: nn.Module, feats: Any, rois: Tensor) -> Tensor:
    """Scores regions.

    Args:
        model: A detector without a :func:`region_obstacle`.
        feats: What its ``extract_feat`` returned.
        rois: ``(R, 5)``.

    Returns:
        ``(R, K + 1)``.
    """
    stage = (0,) if _first(model)[1] else ()
    return model.roi_head._bbox_forward(*stage, feats, rois)['cls_score']


@contextmanager
def kept_regions(model: nn.Module) -> Iterator[Callable[[], Regions]]:
    """Keeps what the (first) second stage saw and said while the detector computes its own losses, in a ``with`` block.

    The value is a function that returns the :class:`Regions`, to be called after the losses.
    """
    calls: list[tuple[Tensor, Tensor]] = []
    own = model.roi_head._bbox_forward

    def bbox_forward(*args: Any, **kwargs: Any) -> Any:
        result = own(*args, **kwargs)
        given = inspect.signature(own).bind(*args, **kwargs).arguments
        calls.append((given['rois'].detach(), result['cls_score']))
        return result

    with hiding(model.roi_head, '_bbox_forward', bbox_forward), kept_targets(_first(model)[0]) as kept:
        yield lambda: Regions(*calls[0], kept[0][0].detach())


def _first(model: nn.Module) -> tuple[nn.Module, bool]:
    """The box head that scores the proposals, and whether there are stages behind it."""
    head = model.roi_head.bbox_head
    return (head[0], True) if isinstance(head, nn.ModuleList) else (head, False)
