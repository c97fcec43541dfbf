"""mmpretrain image classifiers."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Optional

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmrkd.adapters.base import ModelAdapter
from mmrkd.adapters.classifier_graph import ClassifierGraph
from mmrkd.adapters.image_graph import ImageGraph
from mmrkd.adapters.reuse import hiding
from mmrkd.adapters.samples import Samples
from mmrkd.adapters.state import unchanged
from mmrkd.adapters.taps import Call
from mmrkd.registry import ADAPTERS
from mmrkd.structures import Features

HEADS = 'mmpretrain.models.heads.'
NO_CLASSES = {  # heads whose outputs are not the scores of one set of classes -> what they are
    HEADS + 'multi_task_head.MultiTaskHead': 'it has one output for each of its tasks',
    HEADS + 'regression_head.RegressionHead': 'it regresses values',
}


@ADAPTERS.register_module()
class ClassificationAdapter(ModelAdapter):
    """Any mmpretrain ``ImageClassifier``.

    The distillable feature is the last one that the neck gives: for most the pooled ``(N, C)`` vector before the head.
    """

    serves = 'mmpretrain.models.classifiers.image.ImageClassifier'
    refuses = 'mmdet.models.reid.base_reid.BaseReID'
    refuses_because = 'it embeds the crops of tracked objects and classifies nothing'
    task = 'classification'
    main_metric = 'accuracy/top1'
    default_tau = 4.0  # as in the paper of KD
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

    def logit_maps(self, outputs: Any) -> list[Tensor]:
        """Returns the logits as ``(N, K, 1, 1)``."""
        return [logits[..., None, None] for logits in self.logits(outputs)]

    def logits(self, outputs: Any) -> list[Tensor]:
        """Returns the logits; where a head has two classifiers (Conformer), their sum, as it predicts."""
        return [_scores(outputs)]

    @property
    def sigmoid(self) -> bool:
        """Whether the head, or its loss, treats classes independently."""
        return _independent(self._loss) or any('MultiLabel' in base.__name__ for base in type(self.head).__mro__)

    @property
    def _loss(self) -> Optional[nn.Module]:
        return getattr(self.head, 'loss_module', None)

    def select_classes(self, outputs: Any, index: Sequence[int]) -> Any:
        """Returns the logits of some classes, ``(N, len(index))``."""
        if isinstance(outputs, Tensor):
            return outputs[:, list(index)]
        return type(outputs)(self.select_classes(part, index) for part in outputs)

    def layout(self, feats: Any, index: Optional[Sequence[int]] = None) -> dict[str, Any]:
        """Number of classes and kind of logits."""
        reason = self._no_classes()
        if reason is not None:
            return {'dense head': f'none ({type(self.head).__name__}: {reason})'}
        return {'classes': self.num_classes if index is None else len(index), 'sigmoid': self.sigmoid}

    def _no_classes(self) -> Optional[str]:
        """Why the outputs are not the logits of one set of classes."""
        names = (f'{base.__module__}.{base.__qualname__}' for base in type(self.head).__mro__)
        return next((NO_CLASSES[name] for name in names if name in NO_CLASSES), None)

    @property
    def num_classes(self) -> Optional[int]:
        """Number of classes of the head, else of the backbone where that is the classifier (VGG), else of the data."""
        parts = (self.head, getattr(self.model, 'backbone', None), self.model.data_preprocessor)
        return next((part.num_classes for part in parts if getattr(part, 'num_classes', None)), None)

    def blend(self, outputs: Any, other: Any, alpha: float, samples: Sequence) -> Sequence:
        """Predicts from blended logits."""
        return self.head._get_predictions((1 - alpha) * _scores(outputs) + alpha * _scores(other), samples)

    def targets(self, samples: Samples) -> Tensor:
        """Returns the class of each image, ``(N,)``.

        Raises:
            ValueError: An image has no single class: its label is mixed or smoothed, or it has several.
        """
        return torch.stack([_label(sample) for sample in samples])

    def target_scores(self, samples: Samples) -> Tensor:
        """Returns the probabilities that the labels give to the classes, ``(N, K)``: soft ones as they are.

        Raises:
            ValueError: An image has no label.
        """
        given = [sample.get('gt_score') for sample in samples]
        if any(score is None for score in given):
            labels = self.targets(samples)  # not one_hot, which looks at every label and lets a GPU wait
            return (labels[:, None] == torch.arange(self.num_classes, device=labels.device)).float()
        return torch.stack(given).float()

    def task_loss(self, feats: Any, inputs: Tensor, samples: Samples, *args: Any, **kwargs: Any) -> tuple[dict, Any]:
        """As the base class does. The accuracy, which mmpretrain refuses to compute of mixed labels, is left out."""
        with ExitStack() as stack:
            for module in self.model.modules() if _mixed(samples) else ():
                if getattr(module, 'cal_acc', False) is True:
                    stack.enter_context(hiding(module, 'cal_acc', False))
            return super().task_loss(feats, inputs, samples, *args, **kwargs)

    def plain_outputs(self, call: Call, feats: Any) -> Any:
        """Computes the outputs anew where the head was told the labels.

        ArcFace takes a margin off the logit of the true class: its loss sees that, no prediction does, and so no other
        head is compared with it.
        """
        return self.head_outputs(feats) if len(call.args) + len(call.kwargs) > 1 else call.output

    def graph(self, size: Sequence[int], outputs: Optional[str] = None) -> ImageGraph:
        """Returns the classifier as a graph that gives ``'scores'``."""
        if outputs not in (None, 'scores'):
            raise ValueError(f"the outputs of a classifier are its 'scores', found {outputs!r}")
        return ClassifierGraph(self, size)

    def judge(self, feats: Any, inputs: Tensor, samples: Samples, capture: Any = None) -> tuple[dict[str, Any], Any]:
        """As :meth:`task_loss`; what the loss writes into the head (Seesaw counts samples) is put back."""
        with unchanged(self.head.modules() if self.head is not None else self.model.modules()):
            return self.task_loss(feats, inputs, samples, capture)


def _scores(outputs: Any) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else sum(outputs)


def _independent(loss: Optional[nn.Module]) -> bool:
    """Whether a loss takes the sigmoid of each logit: it says so, or (label smoothing) the loss inside it does."""
    if loss is None:
        return False
    if type(loss).__name__ == 'FocalLoss':  # mmpretrain's knows nothing else, and does not say so
        return True
    inner = getattr(loss, 'ce', None)
    return bool(getattr(loss, 'use_sigmoid', False)) or (isinstance(inner, nn.Module) and _independent(inner))


def _mixed(samples: Samples) -> bool:
    """Whether labels are scores; those of several tasks lie one level deeper."""
    elements = [sample for sample in samples if isinstance(sample, BaseDataElement)]
    inner = [value for sample in elements for value in sample.values() if isinstance(value, BaseDataElement)]
    return any('gt_score' in element for element in (*elements, *inner))


def _label(sample: Any) -> Tensor:
    score, label = sample.get('gt_score'), sample.get('gt_label')
    if score is not None:
        hard = (score == 1).sum() == 1 and (score == 0).sum() == score.numel() - 1
        label = score.argmax().reshape(1) if hard else None
    if label is None or label.numel() != 1:
        found = 'none' if score is None and label is None else score if label is None else label
        raise ValueError(
            f'a single class for each image is expected, found {found}: mixed, smoothed and multiple labels have none. '
            "Either let the teacher choose the class (target='teacher'), or train without mixing (batch_augments of "
            'the data preprocessor).'
        )
    return label.reshape(()).long()
