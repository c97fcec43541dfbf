"""mmpose's top-down pose estimators: a backbone, perhaps a neck, a head of heatmaps or of coordinates."""

from collections.abc import Sequence
from contextlib import ExitStack
from fractions import Fraction
from functools import cached_property
from typing import Any, Callable, Optional, Union

import torch
from torch import Tensor, nn

from mmrkd.adapters.base import ModelAdapter
from mmrkd.adapters.codecs import coordinate_targets, settings_of
from mmrkd.adapters.reuse import hiding
from mmrkd.adapters.samples import Samples
from mmrkd.adapters.state import unchanged
from mmrkd.adapters.structure import tensors_in
from mmrkd.registry import ADAPTERS
from mmrkd.structures import Features

HEADS = 'mmpose.models.heads.'
HEATMAPS = (HEADS + 'heatmap_heads.heatmap_head.HeatmapHead',)
READS_ALL = (HEADS + 'coord_cls_heads.rtmw_head.RTMWHead',)
COORDINATES = (
    HEADS + 'coord_cls_heads.simcc_head.SimCCHead',
    HEADS + 'coord_cls_heads.rtmcc_head.RTMCCHead',
    *READS_ALL,
)
LOSSES = 'mmpose.models.losses.'
NO_HEATMAPS = {LOSSES + 'heatmap_loss.CombinedTargetMSELoss': 'heatmaps and offsets'}  # loss -> what such a head gives


@ADAPTERS.register_module(name='MMPose')  # an adapter of one's own may well have the class's name
class PoseAdapter(ModelAdapter):
    """mmpose's ``TopdownPoseEstimator``.

    The distillable feature is the last map of backbone and neck, which the heads read; of a head that is not known, all
    maps. What takes the place of classes are the keypoints.
    """

    serves = 'mmpose.models.pose_estimators.topdown.TopdownPoseEstimator'
    task = 'pose'
    main_metric = 'coco/AP'
    metric_scale = 100.0
    takes_necks = False
    declares_padding = False  # img_shape is that of the file, and the input a crop of it that was warped

    @classmethod
    def placed_at(cls, at: str) -> type[ModelAdapter]:
        """Returns this adapter, or (``'penultimate'``) the one for what the last convolution of the head reads."""
        if at == 'penultimate':
            from mmrkd.adapters.penultimate_pose import PenultimatePoseAdapter

            return PenultimatePoseAdapter
        return super().placed_at(at)

    @cached_property
    def dry_sizes(self) -> Sequence[Union[int, tuple[int, int]]]:
        """The input size of the head's codec, as height and width: some heads run on no other."""
        width, height = getattr(self.codec, 'input_size', None) or getattr(self.head, 'input_size', (192, 256))
        return ((int(height), int(width)),)

    def features(self, feats: Any) -> Features:
        """Returns the last map ``(N, C, H, W)``."""
        maps = list(tensors_in(feats))
        return tuple(maps[index] for index in self.positions(feats))

    def replace(self, feats: Any, features: dict[int, Tensor]) -> Any:
        """Returns ``feats`` with that map replaced."""
        positions = self.positions(feats)
        return super().replace(feats, {positions[index]: feature for index, feature in features.items()})

    def positions(self, feats: Any) -> tuple[int, ...]:
        """Where each of :meth:`features` lies among the maps in ``feats``."""
        count = sum(1 for _ in tensors_in(feats))
        return (count - 1,) if self.reads_last else tuple(range(count))

    @property
    def head(self) -> Optional[nn.Module]:
        """The head; ``None`` if the model has none."""
        return getattr(self.model, 'head', None)

    @property
    def codec(self) -> Any:
        """What turns keypoints into the targets of the head, and its outputs into keypoints; ``None`` without."""
        return getattr(self.head, 'decoder', None)

    @cached_property
    def kind(self) -> Optional[str]:
        """``'heatmaps'`` or ``'coordinates'`` (SimCC); ``None`` of a head that is neither."""
        names = _names(self.head)
        if names & set(COORDINATES):
            return 'coordinates'
        return 'heatmaps' if names & set(HEATMAPS) else None

    @property
    def reads_last(self) -> bool:
        """Whether the head reads the last map alone."""
        return self.kind is not None and not _names(self.head) & set(READS_ALL)

    @property
    def no_outputs(self) -> Optional[str]:
        """Why the outputs of the head cannot be compared; ``None`` if they can."""
        if self.kind is None:
            return 'neither heatmaps nor coordinates'
        known = [NO_HEATMAPS[name] for name in _names(self._loss) if name in NO_HEATMAPS]
        return known[0] if known else None

    @property
    def _loss(self) -> Optional[nn.Module]:
        return getattr(self.head, 'loss_module', None)

    def head_outputs(self, feats: Any) -> Any:
        """Returns heatmaps ``(N, J, h, w)``, or logits over the bins of x ``(N, J, W)`` and of y ``(N, J, H)``."""
        return self.head(feats)

    @property
    def output_loss(self) -> str:
        """Heatmaps are trained by their squared error, logits over bins by a softmax."""
        return 'mse' if self.kind == 'heatmaps' else 'softmax'

    @property
    def sums_outputs(self) -> bool:
        """X and y are distributions of their own."""
        return self.kind == 'coordinates'

    @property
    def beta(self) -> float:
        """What the loss of the head multiplies logits over bins by, before its softmax."""
        return float(getattr(self._loss, 'beta', 1.0))

    def logit_maps(self, outputs: Any) -> list[Tensor]:
        """Returns the heatmaps, or of SimCC the logits of both axes as ``(N, J, 1, bins)``, times :attr:`beta`."""
        if self.kind == 'heatmaps':
            return [outputs]
        return [self.beta * logits[:, :, None] for logits in outputs]

    def logits(self, outputs: Any) -> list[Tensor]:
        """Returns a row for each joint, ``(N * J, positions)``, of SimCC one such tensor for each axis."""
        return [maps.flatten(0, 1).flatten(1) for maps in self.logit_maps(outputs)]

    def logit_strides(self) -> list[Optional[Fraction]]:
        """Returns how many pixels a cell of each of :meth:`logit_maps` stands for."""
        if self.kind == 'coordinates':
            return [None, None]
        with self.evaluating():
            return [self.pixels_per_cell(maps) for maps in self.logit_maps(self.head_outputs(self.dry_feats))]

    def visibility(self, samples: Optional[Samples]) -> Optional[Tensor]:
        """Returns the weights of the keypoints, ``(N, J)``."""
        if samples is None:
            return None
        return torch.cat([sample.gt_instance_labels.keypoint_weights for sample in samples])

    @property
    def sigmoid(self) -> bool:
        """No: the positions of a joint exclude each other."""
        return False

    @property
    def num_classes(self) -> Optional[int]:
        """Number of keypoints."""
        return getattr(self.head, 'out_channels' if self.no_outputs is None else 'num_joints', None)

    def select_classes(self, outputs: Any, index: Sequence[int]) -> Any:
        """Returns the outputs for some keypoints."""
        if isinstance(outputs, Tensor):
            return outputs[:, list(index)]
        return type(outputs)(self.select_classes(part, index) for part in outputs)

    def layout(self, feats: Any, index: Optional[Sequence[int]] = None) -> dict[str, Any]:
        """Kind of outputs, number of joints, size of heatmaps or numbers of bins, and the settings of the codec."""
        reason = self.no_outputs
        if reason is not None:
            return {'dense head': f'none ({type(self.head).__name__}: {reason})'}
        outputs = self.head_outputs(feats)
        outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        return {
            'outputs': self.kind,
            'keypoints': outputs[0].shape[1] if index is None else len(index),
            'sizes': [tuple(part.shape[2:]) for part in outputs],
            'codec': settings_of(self.codec),
        }

    def target_gap(self, student: ModelAdapter) -> Optional[str]:
        """Says what differs between the targets of two models, which the codec of the student prepares."""
        kinds = (getattr(student, 'kind', None), self.kind)
        codecs = (settings_of(getattr(student, 'codec', None)), settings_of(self.codec))
        if None in codecs:
            codecs = (None, None)
        if kinds[0] != kinds[1] or codecs[0] != codecs[1]:
            return (
                f'the student learns {kinds[0] or "its targets"} of the codec {codecs[0]}, the teacher '
                f'{kinds[1] or "its targets"} of {codecs[1]}'
            )
        return None

    @property
    def flips(self) -> bool:
        """Whether the model predicts from each image and its mirror image."""
        return bool((self.model.test_cfg or {}).get('flip_test', False))

    @property
    def blend_obstacle(self) -> Optional[str]:
        """The outputs for an image and its mirror image are those of two passes."""
        if self.flips:
            return 'blend needs test_cfg=dict(flip_test=False): it mixes the outputs of one pass'
        return None if self.no_outputs is None else f'blend needs heatmaps or coordinates, found {self.no_outputs}'

    def blend(self, outputs: Any, other: Any, alpha: float, samples: Sequence) -> Sequence:
        """Predicts from blended outputs."""
        pairs = [[part] if isinstance(part, Tensor) else list(part) for part in (outputs, other)]
        mixed = [(1 - alpha) * own + alpha * others for own, others in zip(*pairs)]
        predictions = self.head.decode(mixed[0] if isinstance(outputs, Tensor) else tuple(mixed))
        return self.model.add_pred_to_datasample(predictions, None, samples)

    def targets(self, samples: Samples) -> Any:
        """Returns heatmaps ``(N, J, h, w)``, or the distributions over the bins of both axes."""
        if self.kind == 'coordinates':
            return coordinate_targets(samples)
        return torch.stack([sample.gt_fields.heatmaps for sample in samples])

    def judge(self, feats: Any, inputs: Tensor, samples: Samples, capture: Any = None) -> tuple[dict[str, Any], Any]:
        """As :meth:`task_loss`, without the accuracy, which mmpose computes on the CPU.

        What the loss writes into the head is put back.
        """
        with ExitStack() as stack:
            stack.enter_context(unchanged(self.head.modules()))
            train_cfg = {**(self.model.train_cfg or {}), 'compute_acc': False}
            stack.enter_context(hiding(self.model, 'train_cfg', train_cfg))
            if self.kind == 'coordinates' and self.no_outputs is None:  # these heads compute it whatever train_cfg says
                outputs = self.head_outputs(feats)
                loss = self._loss(outputs, self.targets(samples), self.visibility(samples))
                return dict(loss_kpt=loss), outputs
            return self.task_loss(feats, inputs, samples, capture)

    def predict(self, feats: Any, inputs: Tensor, samples: Samples) -> Sequence:
        """Predicts from given features, with the model's own post-processing.

        Raises:
            ValueError: The model also looks at the mirror images, whose features these are not.
        """
        if self.flips:
            raise ValueError(
                'the features of an image are not those of its mirror image (test_cfg=dict(flip_test=True)): '
                'predict_through takes what computes them'
            )
        return self.predict_through(lambda _: feats, inputs, samples)

    def predict_through(self, extract: Callable[[Tensor], Any], inputs: Tensor, samples: Samples) -> Sequence:
        """Predicts from features that a function computes of the images and, if asked for, of their mirror images."""
        own = self.model.extract_feat

        def extract_feat(images: Tensor) -> Any:
            with hiding(self.model, 'extract_feat', own):  # which the function may call itself
                return extract(images)

        with hiding(self.model, 'extract_feat', extract_feat):
            return self.model(inputs, samples, mode='predict')


def _names(module: Optional[nn.Module]) -> set[str]:
    return {f'{base.__module__}.{base.__qualname__}' for base in type(module).__mro__}
