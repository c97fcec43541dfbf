"""mmpretrain image classifiers."""

from collections.abc import Sequence
from typing import Any, Optional

from torch import Tensor, nn

from mmrkd.adapters.base import ModelAdapter
from mmrkd.structures import Features


class ClassificationAdapter(ModelAdapter):
    """Any mmpretrain ``ImageClassifier``.

    The distillable feature is the last one that the neck gives: the pooled ``(N, C)`` vector before the head.
    """

    def features(self, feats: Any) -> Features:
        """Returns the last stage, ``(N, C)`` after global pooling, ``(N, C, H, W)`` without a neck."""
        last = feats[-1] if isinstance(feats, (tuple, list)) else feats
        return (last,)

    def replace(self, feats: Any, features: dict[int, Tensor]) -> Any:
        """Returns ``feats`` with its last stage replaced."""
        if not features:
            return feats
        return (*feats[:-1], features[0]) if isinstance(feats, (tuple, list)) else features[0]

    @property
    def trial_size(self) -> int:
        """The size that the backbone was made for, where it says so: Swin takes no image smaller than its windows."""
        backbone = self.model.backbone
        embedded = getattr(getattr(backbone, 'patch_embed', None), 'init_input_size', None)
        size = getattr(backbone, 'img_size', None) or embedded or super().trial_size
        return size if isinstance(size, int) else max(size)

    @property
    def head(self) -> Optional[nn.Module]:
        """The classification head."""
        return self.model.head

    def head_outputs(self, feats: Any) -> Tensor:
        """Returns logits ``(N, K)``."""
        return self.model.head(feats)

    def logits(self, outputs: Tensor) -> list[Tensor]:
        """Returns the logits as they are."""
        return [outputs]

    @property
    def sigmoid(self) -> bool:
        """Whether the head's loss treats classes independently."""
        return bool(getattr(getattr(self.model.head, 'loss_module', None), 'use_sigmoid', False))

    def layout(self, feats: Any) -> dict[str, Any]:
        """Number of classes and kind of logits."""
        return {'classes': self.num_classes, 'sigmoid': self.sigmoid}

    @property
    def num_classes(self) -> Optional[int]:
        """Number of classes of the head."""
        return getattr(self.model.head, 'num_classes', None)

    def blend(self, outputs: Tensor, other: Tensor, alpha: float, samples: Sequence) -> Sequence:
        """Predicts from blended logits."""
        return self.model.head._get_predictions((1 - alpha) * outputs + alpha * other, samples)
