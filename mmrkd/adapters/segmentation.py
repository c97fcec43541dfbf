"""mmseg segmentors: a backbone, perhaps a neck, one decode head or a cascade of them, auxiliary heads in training."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from fractions import Fraction
from functools import cached_property
from typing import Any, Callable, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrkd.adapters.base import ModelAdapter
from mmrkd.adapters.judging import heads_in_training
from mmrkd.adapters.reuse import hiding
from mmrkd.adapters.samples import Samples, copied
from mmrkd.adapters.scores import flat
from mmrkd.adapters.structure import tensors_in
from mmrkd.adapters.weighing import PixelLoss, obstacle_of, weighed_heads
from mmrkd.registry import ADAPTERS
from mmrkd.structures import Features

HEADS = 'mmseg.models.decode_heads.'
TWO_FORMS = {  # heads that read other maps in training than in evaluation -> how many outputs they then have
    HEADS + 'ddr_head.DDRHead': 'two outputs in training',
    HEADS + 'pid_head.PIDHead': 'three outputs in training',
}
NO_MAP = {  # heads whose outputs are no map of one set of classes -> what they are
    **TWO_FORMS,
    HEADS + 'point_head.PointHead': 'scores of single points',
    HEADS + 'knet_head.IterativeDecodeHead': 'one output for each stage in training',
    HEADS + 'san_head.SideAdapterCLIPHead': 'masks and their classes',
    HEADS + 'vpd_depth_head.VPDDepthHead': 'depths',
}


@ADAPTERS.register_module(name='MMSegmentation')  # an adapter of one's own may well have the class's name
class SegmentationAdapter(ModelAdapter):
    """mmseg's ``EncoderDecoder`` and ``CascadeEncoderDecoder``.

    The distillable features are the maps of backbone and neck that some head reads: those of the decode head first (of
    a cascade the last one's), then what auxiliary heads read beside them. So the maps that two models are judged by
    are matched with each other, also where several have one stride.
    """

    serves = 'mmseg.models.segmentors.encoder_decoder.EncoderDecoder'
    refuses = 'mmseg.models.segmentors.depth_estimator.DepthEstimator'
    refuses_because = 'it regresses depths and tells no classes apart'
    task = 'segmentation'
    main_metric = 'mIoU'

    @classmethod
    def placed_at(cls, at: str) -> type[ModelAdapter]:
        """Returns this adapter, or (``'penultimate'``) the one for what the last convolution of the head reads."""
        if at == 'penultimate':
            from mmrkd.adapters.penultimate import PenultimateAdapter

            return PenultimateAdapter
        return super().placed_at(at)

    def features(self, feats: Any) -> Features:
        """Returns the maps ``(N, C_l, H_l, W_l)`` that heads read."""
        maps = list(tensors_in(feats))
        return tuple(maps[index] for index in self.positions(feats))

    def replace(self, feats: Any, features: dict[int, Tensor]) -> Any:
        """Returns ``feats`` with some of those maps replaced."""
        positions = self.positions(feats)
        return super().replace(feats, {positions[index]: feature for index, feature in features.items()})

    def positions(self, feats: Any) -> tuple[int, ...]:
        """Where each of :meth:`features` lies among the maps in ``feats``."""
        count = sum(1 for _ in tensors_in(feats))
        if self._read is None:
            return tuple(range(count))
        if isinstance(feats, Tensor):  # in evaluation, a backbone that gives several maps in training
            return (0,)
        return tuple(dict.fromkeys(range(count)[index] for index in self._read))

    @cached_property
    def _read(self) -> Optional[tuple[int, ...]]:
        """The indices that the heads have in their configs, negative ones counted from the end; ``None``: all."""
        indices: list[int] = []
        for head in (*reversed(self.decode_heads), *self.auxiliary_heads):
            reader = getattr(head, 'kernel_generate_head', head)  # K-Net: the other stages refine what it gives
            index = getattr(reader, 'in_index', None)
            if index is None:
                return None
            indices.extend(index if isinstance(index, (list, tuple)) else [index])
        return tuple(indices)

    @property
    def decode_heads(self) -> list[nn.Module]:
        """The decode heads, more than one of a cascade, in the order in which they run."""
        return _modules(self.model.decode_head)

    @property
    def auxiliary_heads(self) -> list[nn.Module]:
        """The heads that are only there in training."""
        return _modules(getattr(self.model, 'auxiliary_head', None))

    @property
    def head(self) -> nn.Module:
        """The decode head, of a cascade the last."""
        return self.decode_heads[-1]

    def head_outputs(self, feats: Any) -> Any:
        """Returns logits ``(N, K, h, w)``, or a tuple that begins with them."""
        first, *later = self.decode_heads
        outputs = first(feats)
        for head in later:
            outputs = head(feats, outputs)
        return outputs

    def auxiliary_outputs(self, feats: Any) -> list[Any]:
        """Returns the outputs of the auxiliary heads."""
        return [head(feats) for head in self.auxiliary_heads]

    def logit_maps(self, outputs: Any) -> list[Tensor]:
        """Returns the one map of logits ``(N, K, h, w)``, at the stride of the head."""
        return [outputs if isinstance(outputs, Tensor) else outputs[0]]

    def enlarged(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Returns logits ``(N, K, h, w)`` as the model brings them to the size of an image."""
        return F.interpolate(logits, tuple(size), mode='bilinear', align_corners=self.model.align_corners)

    def logits(self, outputs: Any) -> list[Tensor]:
        """Returns the logits of all positions ``(N * h * w, K)``; one column for two classes told apart by sigmoid."""
        return [flat(logits, logits.shape[1]) for logits in self.logit_maps(outputs)]

    def logit_strides(self) -> list[Fraction]:
        """Returns how many pixels a cell of each of :meth:`logit_maps` stands for."""
        with self.evaluating():
            return [self.pixels_per_cell(logits) for logits in self.logit_maps(self.head_outputs(self.dry_feats))]

    @property
    def sigmoid(self) -> bool:
        """Whether the decode head takes the sigmoid of each logit."""
        losses = _modules(getattr(self.head, 'loss_decode', None))
        asked = [bool(loss.use_sigmoid) for loss in losses if hasattr(loss, 'use_sigmoid')]
        return self.model.out_channels == 1 or (asked or [False])[0]

    @property
    def num_classes(self) -> Optional[int]:
        """Number of classes of the last decode head."""
        return self.model.num_classes

    def select_classes(self, outputs: Tensor, index: Sequence[int]) -> Tensor:
        """Returns the logits of some classes."""
        return outputs[:, list(index)]

    def layout(self, feats: Any, index: Optional[Sequence[int]] = None) -> dict[str, Any]:
        """Number and kind of logits, pixels for a cell of them, and how they are enlarged to the size of the image."""
        reason = self.no_map
        if reason is not None:
            return {'dense head': f'none ({type(self.head).__name__}: {reason})'}
        (logits,) = self.logit_maps(self.head_outputs(feats))
        return {
            'classes': logits.shape[1] if index is None else len(index),
            'sigmoid': self.sigmoid,
            'stride': str(self.pixels_per_cell(logits)),
            'align_corners': self.model.align_corners,
        }

    @property
    def no_map(self) -> Optional[str]:
        """Why the outputs of the decode head are no map of logits; ``None`` if they are one."""
        names = [f'{base.__module__}.{base.__qualname__}' for base in type(self.head).__mro__]
        known = next((NO_MAP[name] for name in names if name in NO_MAP), None)
        return known or (None if hasattr(self.head, 'cls_seg') else 'masks and their classes')

    @property
    def slides(self) -> bool:
        """Whether the model predicts window by window, each of which has features of its own."""
        return (self.model.test_cfg or {}).get('mode', 'whole') == 'slide'

    @property
    def blend_obstacle(self) -> Optional[str]:
        """The logits of an image that is looked at window by window are those of no one pass."""
        if self.slides:
            return "blend needs test_cfg=dict(mode='whole'): in mode='slide' the windows of an image overlap"
        return None if self.no_map is None else f'blend needs a map of logits: {self.no_map}'

    def blend(self, outputs: Any, other: Any, alpha: float, samples: Sequence) -> Sequence:
        """Predicts from blended logits; those of the other model are brought to the grid of this one's."""
        (own,), (others,) = self.logit_maps(outputs), self.logit_maps(other)
        if others.shape[2:] != own.shape[2:]:
            others = self.enlarged(others, own.shape[2:])
        mixed = (1 - alpha) * own + alpha * others
        mixed = self.head.predict_by_feat(mixed, [sample.metainfo for sample in samples])
        return self.model.postprocess_result(mixed, samples)

    @property
    def mixing_obstacle(self) -> Optional[str]:
        """Heads whose outputs are one map of logits can be mixed."""
        return None if self.no_map is None else f'those of a {type(self.head).__name__} are none: {self.no_map}'

    def loss_of_outputs(self, outputs: Tensor, samples: Samples) -> dict[str, Any]:
        """Computes the loss of the decode head on logits ``(N, K, h, w)``."""
        return self.head.loss_by_feat(outputs, copied(samples))

    @property
    def weighing_obstacle(self) -> Optional[str]:
        """The loss of a decode head that is no cross entropy of classes cannot be weighed pixel by pixel."""
        return next(filter(None, map(obstacle_of, self.decode_heads)), None)

    @property
    def unweighed_heads(self) -> list[str]:
        """The auxiliary heads whose losses cannot be weighed, and why."""
        return [reason for head in self.auxiliary_heads if (reason := obstacle_of(head)) is not None]

    def weighing(self, weigh: Callable[[PixelLoss], Tensor]) -> AbstractContextManager[None]:
        """Lets the cross entropy of each head weigh its pixels, inside a ``with`` block.

        What has another loss (:attr:`unweighed_heads`) keeps it. Only the last head of a cascade is the main one.

        Args:
            weigh: Returns how much each pixel counts in a head's loss: the sum over pixels of what it returns times
                the cross entropy, ``(N, H, W)``, without weights of classes.
        """
        others = [head for head in (*self.decode_heads[:-1], *self.auxiliary_heads) if obstacle_of(head) is None]
        return weighed_heads(self.head, others, weigh)

    def targets(self, samples: Samples) -> Tensor:
        """Returns the class of each pixel, ``(N, H, W)``."""
        return torch.cat([sample.gt_sem_seg.data for sample in samples])

    def judge(self, feats: Any, inputs: Tensor, samples: Samples, capture: Any = None) -> tuple[dict[str, Any], Any]:
        """Computes the losses of decode and auxiliary heads.

        Raises:
            ValueError: The head reads other maps in training than the frozen model has computed.
        """
        names = {f'{base.__module__}.{base.__qualname__}' for base in type(self.head).__mro__}
        if names & TWO_FORMS.keys():
            raise ValueError(
                f'TWI needs a teacher whose heads read the same maps in training as in evaluation, and a '
                f"{type(self.head).__name__} does not. Switch it off (ERA with twi_on='none'), or take another teacher."
            )
        with heads_in_training(self.model):
            return self.task_loss(feats, inputs, samples, capture)

    def predict(self, feats: Any, inputs: Tensor, samples: Samples) -> Sequence:
        """Predicts from given features, with the model's own post-processing.

        Raises:
            ValueError: The model looks at windows, whose features these are not.
        """
        if self.slides and any(i > c for i, c in zip(inputs.shape[2:], self.model.test_cfg['crop_size'])):
            raise ValueError(
                f'the features of an image {tuple(inputs.shape[2:])} are not those of its windows '
                f"{tuple(self.model.test_cfg['crop_size'])} (test_cfg=dict(mode='slide')): predict_through takes what "
                'computes them'
            )
        return super().predict(feats, inputs, samples)

    def predict_through(self, extract: Callable[[Tensor], Any], inputs: Tensor, samples: Samples) -> Sequence:
        """Predicts from features that a function computes of the image, or of each of its windows."""
        own = self.model.extract_feat

        def extract_feat(images: Tensor) -> Any:
            with hiding(self.model, 'extract_feat', own):  # which the function may call itself
                return extract(images)

        with hiding(self.model, 'extract_feat', extract_feat):
            return self.model.predict(inputs, samples)


def _modules(part: Optional[nn.Module]) -> list[nn.Module]:
    return [] if part is None else list(part) if isinstance(part, nn.ModuleList) else [part]
