"""mmpretrain image classifiers."""

from collections.abc import Sequence
from typing import Any, Optional

from torch import Tensor, nn

from mmrkd.adapters.base import ModelAdapter
from mmrkd.structures import Features


class ClassificationAdapter(ModelAdapter):
    """Any mmpretrain ``ImageClassifier``.

    The distillable feature is the last one that the neck gives: for most the pooled ``(N, C)`` vector before the head.
    """

    dry_sizes = (128, 224, 256, 192, 336, 384, 448, 512, 32, 28)  # many transformers only run on their own size

    def features(self, feats: Any) -> Features:
        """Returns the last stage: ``(N, C)`` after global pooling, ``(N, C, H, W)`` without a neck.

        A stage can hold several features: class and distillation token of DeiT, both branches of Conformer.
        """
        return super().features(feats[-1] if isinstance(feats, (tuple, list)) else feats)

    def replace(self, feats: Any, features: dict[int, Tensor]) -> Any:
        """Returns ``feats`` with features of its last stage replaced."""
        if isinstance(feats, (tuple, list)):
            return (*feats[:-1], super().replace(feats[-1], features))
        return super().replace(feats, features)

    @property
    def head(self) -> Optional[nn.Module]:
        """The classification head."""
        return self.model.head

    def head_outputs(self, feats: Any) -> Any:
        """Returns logits ``(N, K)``, of Conformer a pair of them."""
        return self.model.head(feats)

    def logits(self, outputs: Any) -> list[Tensor]:
        """Returns the logits; where a head has two classifiers (Conformer), their sum, as it predicts."""
        return [_scores(outputs)]

    @property
    def sigmoid(self) -> bool:
        """Whether the head's loss treats classes independently."""
        return bool(getattr(getattr(self.model.head, 'loss_module', None), 'use_sigmoid', False))

    def layout(self, feats: Any) -> dict[str, Any]:
        """Number of classes and kind of logits."""
        return {'classes': self.num_classes, 'sigmoid': self.sigmoid}

    @property
    def num_classes(self) -> Optional[int]:
        """Number of classes of the head, else of the backbone where that is the classifier (VGG), else of the data."""
        parts = (self.model.head, getattr(self.model, 'backbone', None), self.model.data_preprocessor)
        return next((part.num_classes for part in parts if getattr(part, 'num_classes', None)), None)

    def blend(self, outputs: Any, other: Any, alpha: float, samples: Sequence) -> Sequence:
        """Predicts from blended logits."""
        return self.model.head._get_predictions((1 - alpha) * _scores(outputs) + alpha * _scores(other), samples)


def _scores(outputs: Any) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else sum(outputs)
