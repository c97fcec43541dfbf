"""Classifiers of other libraries inside mmpretrain's wrappers, which have no backbone and head of their own."""

from collections.abc import Sequence
from typing import Any, Optional

from torch import Tensor, nn

from mmrkd.adapters.assigned import TargetCapture
from mmrkd.adapters.classification import ClassificationAdapter
from mmrkd.adapters.samples import Samples, copied
from mmrkd.adapters.state import unchanged
from mmrkd.registry import ADAPTERS


@ADAPTERS.register_module()
class WholeClassificationAdapter(ClassificationAdapter):
    """mmpretrain's ``TimmClassifier`` and ``HuggingFaceClassifier``: all that they give is their logits.

    These stand for the features, too, so that the model is still run once a step. Modules inside it can be tapped.
    """

    serves = (
        'mmpretrain.models.classifiers.timm.TimmClassifier',
        'mmpretrain.models.classifiers.hugging_face.HuggingFaceClassifier',
    )

    def extract(self, inputs: Tensor) -> Tensor:
        """Runs the whole model: returns logits ``(N, K)``."""
        return self.model(inputs, mode='tensor')

    @property
    def head(self) -> Optional[nn.Module]:
        """None that could be run by itself."""
        return None

    def head_outputs(self, feats: Any) -> Any:
        """Returns the logits that ``feats`` are."""
        return feats

    @property
    def _loss(self) -> nn.Module:
        return self.model.loss_module

    @property
    def num_classes(self) -> Optional[int]:
        """Number of classes as the library says it, else as many as there are logits."""
        inner = self.model.model
        found = getattr(inner, 'num_classes', None) or getattr(getattr(inner, 'config', None), 'num_labels', None)
        return found or self.dry_feats.shape[1]

    def task_loss(
        self, feats: Any, inputs: Tensor, samples: Samples, capture: Optional[TargetCapture] = None
    ) -> tuple[dict[str, Any], Any]:
        """Computes the loss of the logits that ``feats`` are."""
        return self.model._get_loss(feats, copied(samples)), feats

    def judge(
        self, feats: Any, inputs: Tensor, samples: Samples, capture: Optional[TargetCapture] = None
    ) -> tuple[dict[str, Any], Any]:
        """As :meth:`task_loss`; what the loss writes into itself is put back."""
        with unchanged(self._loss.modules()):
            return self.task_loss(feats, inputs, samples)

    def predict(self, feats: Any, inputs: Tensor, samples: Samples) -> Sequence:
        """Predicts from logits."""
        return self.model._get_predictions(feats, samples)

    def blend(self, outputs: Any, other: Any, alpha: float, samples: Sequence) -> Sequence:
        """Predicts from blended logits."""
        return self.model._get_predictions((1 - alpha) * outputs + alpha * other, samples)
