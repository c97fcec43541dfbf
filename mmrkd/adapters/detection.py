"""mmdet detectors: one-stage, two-stage, DETR-like, with or without masks."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Optional

from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmrkd.adapters.assigned import TargetCapture
from mmrkd.adapters.dense_outputs import DenseOutputs
from mmrkd.adapters.detector_graph import CandidatesGraph, DetectionsGraph, HeadGraph
from mmrkd.adapters.image_graph import ImageGraph
from mmrkd.adapters.judging import (
    check_ground_truth,
    check_text,
    heads_in_training,
    needed_ground_truth,
    one_branch_predicts,
    without_mask_head,
)
from mmrkd.adapters.regions import kept_regions, region_logits, region_obstacle
from mmrkd.adapters.samples import Samples, copied
from mmrkd.registry import ADAPTERS
from mmrkd.structures import Features

NOT_DENSE = ('roi_head', 'semantic_head')


@ADAPTERS.register_module()
class DetectionAdapter(DenseOutputs):
    """Any mmdet ``BaseDetector``. The distillable features are the levels that the neck gives."""

    serves = 'mmdet.models.detectors.base.BaseDetector'
    refuses = 'mmdet3d.models.detectors.base.Base3DDetector'
    refuses_because = 'it takes points or voxels and no image tensor'
    task = 'detection'
    main_metric = 'coco/bbox_mAP'
    metric_scale = 100.0

    def features(self, feats: Any) -> Features:
        """Returns the levels ``(N, C, H_l, W_l)``, mostly finest first."""
        levels = super().features(feats)
        if (
            one_branch_predicts(self.model) and self.model.training
        ):  # its branches stand one after the other in the batch
            levels = tuple(f.chunk(self.model.num_branch)[self.model.test_branch_idx] for f in levels)
        return levels

    @property
    def head(self) -> Optional[nn.Module]:
        """``bbox_head`` of a one-stage detector, ``rpn_head`` of a two-stage one, else that of masks or panoptics."""
        children = self.model.named_children()
        return next((child for name, child in children if name.endswith('_head') and name not in NOT_DENSE), None)

    def head_outputs(self, feats: Any) -> tuple[list[Tensor], ...]:
        """Returns what the dense head computes: usually ``(cls_scores, bbox_preds, ...)``, a list over levels each."""
        return self.head(feats)

    def training_outputs(self, feats: Any) -> tuple[list[Tensor], ...]:
        """In evaluation FCOS multiplies its boxes by the strides, and VFNet leaves its first boxes out."""
        with heads_in_training(self.model):
            return self.head_outputs(feats)

    @property
    def num_classes(self) -> Optional[int]:
        """Number of classes that the detector tells apart (of the RoI head, where there is one)."""
        head = getattr(getattr(self.model, 'roi_head', None), 'bbox_head', self.head)
        head = head[-1] if isinstance(head, nn.ModuleList) else head
        return getattr(head, 'num_classes', None)

    def samples_for(self, inputs: Tensor, samples: Samples) -> Samples:
        """Returns samples whose ``batch_input_shape`` is that of ``inputs``: the masks of DETR are made of it."""
        shape = tuple(inputs.shape[-2:])
        if isinstance(samples, dict) or all(tuple(s.get('batch_input_shape', shape)) == shape for s in samples):
            return samples
        fitting = copied(samples)
        for sample in fitting:
            sample.set_metainfo(dict(batch_input_shape=shape))
        return fitting

    def targets(self, samples: Samples) -> list[InstanceData]:
        """Returns the instances of each image, with ``bboxes`` and ``labels``."""
        if isinstance(samples, dict):  # mmyolo: rows (image, label, x1, y1, x2, y2) of the whole batch
            rows, images = samples['bboxes_labels'], range(len(samples['img_metas']))
            chosen = [rows[rows[:, 0] == image] for image in images]
            return [InstanceData(bboxes=r[:, 2:], labels=r[:, 1].long()) for r in chosen]
        return [sample.gt_instances for sample in samples]

    @property
    def with_mask(self) -> bool:
        """Whether the detector has a mask branch."""
        return bool(self.model.with_mask)

    @property
    def two_stage(self) -> bool:
        """Whether there is a RoI head."""
        return getattr(self.model, 'roi_head', None) is not None

    @property
    def region_obstacle(self) -> Optional[str]:
        """Why there are no scores of regions that could be compared."""
        return region_obstacle(self.model)

    def region_logits(self, feats: Any, rois: Tensor) -> Tensor:
        """Scores regions by the second stage, by the first of a cascade."""
        return region_logits(self.model, feats, rois)

    def task_loss(
        self, feats: Any, inputs: Tensor, samples: Samples, capture: Optional[TargetCapture] = None
    ) -> tuple[dict[str, Any], Any]:
        """Computes the detector's own losses; ``capture`` may receive the regions that they were computed on."""
        if capture is None or not capture.wants_regions:
            return super().task_loss(feats, inputs, samples, capture)
        with kept_regions(self.model) as read:
            result = super().task_loss(feats, inputs, samples, capture)
        capture.regions = read()
        return result

    @property
    def blend_obstacle(self) -> Optional[str]:
        """The final scores of a two-stage detector are not dense."""
        if not self.two_stage:
            return None
        return 'blend needs a one-stage detector: the scores of a two-stage one are not on a dense grid'

    def blend(self, outputs: Any, other: Any, alpha: float, samples: Sequence) -> Sequence:
        """Predicts from dense outputs that were blended before NMS, scores as logits; not for two-stage detectors."""
        mixed = [[(1 - alpha) * a + alpha * b for a, b in zip(p, q)] for p, q in zip(outputs, other)]
        if self.reading is not None and self.reading.probabilities:
            pairs = zip(self.logit_maps(outputs), self.logit_maps(other))
            mixed[0] = [((1 - alpha) * a + alpha * b).sigmoid() for a, b in pairs]
        metas = [sample.metainfo for sample in samples]
        results = self.model.bbox_head.predict_by_feat(*mixed, batch_img_metas=metas, rescale=True)
        return self.model.add_pred_to_datasample(samples, results)

    def predict(self, feats: Any, inputs: Tensor, samples: Samples) -> Sequence:
        """Predicts from given features, with the detector's own post-processing.

        Raises:
            ValueError: The detector looks for words and the samples have none.
        """
        check_text(self.model, samples)
        return super().predict(feats, inputs, samples)

    def judge(
        self, feats: Any, inputs: Tensor, samples: Samples, capture: Optional[TargetCapture] = None
    ) -> tuple[dict[str, Any], Any]:
        """Computes the detector's own losses, without its mask branch where the batch has no masks.

        Raises:
            ValueError: The batch lacks ground truth that the detector cannot do without.
        """
        check_ground_truth(type(self.model).__name__, self.needed_ground_truth, samples)
        with heads_in_training(self.model), without_mask_head(self.model, samples):
            return self.task_loss(feats, inputs, samples, capture)

    def graph(self, size: Sequence[int], outputs: Optional[str] = None) -> ImageGraph:
        """Returns the detector as a graph.

        Args:
            size: ``(height, width)`` of the images.
            outputs: ``'detections'`` (the default), ``'candidates'`` before suppression, or ``'head'``: its maps.
        """
        kinds = {'detections': DetectionsGraph, 'candidates': CandidatesGraph, 'head': HeadGraph}
        if outputs is not None and outputs not in kinds:
            raise ValueError(f'outputs of a detector are one of {tuple(kinds)}, found {outputs!r}')
        return kinds[outputs or 'detections'](self, size)

    @cached_property
    def needed_ground_truth(self) -> dict[str, str]:
        """Fields that the detector's own losses cannot do without -> where they come from; looked up once."""
        return needed_ground_truth(self.model)
