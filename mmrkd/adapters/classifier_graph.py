"""A classifier as a product takes it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmrkd.adapters.image_graph import Agreement, ImageGraph, largest_difference

CLOSE = 1e-4  # of probabilities: single precision, other order of summation


class ClassifierGraph(ImageGraph):
    """Images ``(N, 3, H, W)`` to probabilities ``(N, K)``, as the head predicts them.

    Args:
        adapter: Of the classifier.
        size: ``(height, width)`` of the images.
    """

    names = ('scores',)

    def __init__(self, adapter: Any, size: Sequence[int]) -> None:
        from mmpretrain.models import ClsHead, MultiLabelClsHead

        super().__init__(adapter.model, size)
        self.adapter = adapter
        head = type(adapter.head)
        self.independent = isinstance(adapter.head, MultiLabelClsHead)
        if not self.independent and getattr(head, '_get_predictions', None) is not ClsHead._get_predictions:
            raise ValueError(
                f'the scores of a {type(adapter.model).__name__} with {head.__name__} cannot be written: a head is '
                "expected that predicts as mmpretrain's ClsHead (softmax) or MultiLabelClsHead (sigmoid) does"
            )

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Returns ``(N, K)``."""
        (logits,) = self.adapter.logits(self.adapter.head_outputs(self.adapter.extract(self.prepared(images))))
        return (torch.sigmoid(logits) if self.independent else torch.softmax(logits, dim=1),)

    def samples(self, count: int) -> list:
        """Returns empty samples."""
        from mmpretrain.structures import DataSample

        return [DataSample(metainfo=dict(img_shape=self.size)) for _ in range(count)]

    def agreement(self, found: Sequence[Tensor], images: Tensor) -> Agreement:
        """Compares the probabilities."""
        expected = torch.stack([sample.pred_score for sample in self.framework(images)])
        worst = largest_difference(found, [expected])
        return Agreement(worst <= CLOSE, f'largest difference of a score {worst:.1e}')
