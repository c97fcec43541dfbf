"""Non-maximum suppression of a batch as one operator, which ONNX has, too."""

from typing import Any

import torch
from torch import Tensor


class Suppression(torch.autograd.Function):
    """Chooses boxes: in PyTorch image by image with mmcv's operator, in ONNX by ``NonMaxSuppression``.

    Boxes that overlap a better one by more than the threshold are dropped, and so are those whose score is 0.
    """

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, iou_threshold: float, most: int) -> Tensor:
        """Returns rows ``(image, 0, box)`` of what is kept, ``(M, 3)``, best first within an image.

        Args:
            ctx: Of autograd; nothing is kept.
            boxes: ``(N, P, 4)``.
            scores: ``(N, P)``, 0 for what is no candidate.
            iou_threshold: Overlap.
            most: P, which a traced graph would not have as a number.
        """
        from mmcv.ops import nms

        rows = []
        for image in range(len(boxes)):
            index = scores[image].nonzero().squeeze(1)
            if len(index):
                index = index[nms(boxes[image, index].contiguous(), scores[image, index], iou_threshold)[1]]
            rows.append(torch.stack([torch.full_like(index, image), torch.zeros_like(index), index], dim=1))
        return torch.cat(rows)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, iou_threshold: float, most: int) -> Any:
        """The same in ONNX, whose operator wants a dimension for the class; there is one."""

        def constant(value: Any, kind: torch.dtype) -> Any:
            return g.op('Constant', value_t=torch.tensor([value], dtype=kind))

        one_class = g.op('Unsqueeze', scores, constant(1, torch.int64))
        limits = constant(most, torch.int64), constant(iou_threshold, torch.float32), constant(0.0, torch.float32)
        return g.op('NonMaxSuppression', boxes, one_class, *limits)
