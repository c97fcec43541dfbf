"""mmdet detectors: one-stage, two-stage, DETR-like, with or without masks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Optional

from torch import Tensor, nn

from mmrkd.adapters.base import ModelAdapter
from mmrkd.structures import Features


class DetectionAdapter(ModelAdapter):
    """Any mmdet ``BaseDetector``. The distillable features are the levels that the neck gives."""

    def features(self, feats: Any) -> Features:
        """Returns the levels ``(N, C, H_l, W_l)``, finest first."""
        return tuple(feats)

    def replace(self, feats: Any, features: dict[int, Tensor]) -> Any:
        """Returns the levels with some of them replaced."""
        return tuple(features.get(index, f) for index, f in enumerate(feats))

    @property
    def head(self) -> Optional[nn.Module]:
        """``bbox_head`` of a one-stage detector, ``rpn_head`` of a two-stage one."""
        return getattr(self.model, 'bbox_head', None) or getattr(self.model, 'rpn_head', None)

    def head_outputs(self, feats: Any) -> tuple[list[Tensor], ...]:
        """Returns what the dense head computes: usually ``(cls_scores, bbox_preds, ...)``, a list over levels each."""
        return self.head(feats)

    def logits(self, outputs: tuple[list[Tensor], ...]) -> list[Tensor]:
        """Returns ``(N * H_l * W_l * A, K)`` for each level."""
        classes = self.head.cls_out_channels
        return [s.permute(0, 2, 3, 1).reshape(-1, classes) for s in outputs[0]]

    def boxes(self, outputs: tuple[list[Tensor], ...]) -> list[Tensor]:
        """Returns ``(N * H_l * W_l * A, 4 * box_bins)`` for each level."""
        return [b.permute(0, 2, 3, 1).reshape(-1, 4 * self.box_bins) for b in outputs[1]]

    @property
    def box_bins(self) -> int:
        """``reg_max + 1`` of a head that integrates a distribution (GFL and its heirs)."""
        return self.head.reg_max + 1 if hasattr(self.head, 'integral') else 1

    @property
    def sigmoid(self) -> bool:
        """Whether the dense head uses sigmoid scores."""
        return bool(getattr(self.head, 'use_sigmoid_cls', False))

    @property
    def num_classes(self) -> Optional[int]:
        """Number of classes that the detector tells apart (of the RoI head, where there is one)."""
        roi_head = getattr(self.model, 'roi_head', None)
        head = self.head if roi_head is None else roi_head.bbox_head
        head = head[-1] if isinstance(head, nn.ModuleList) else head
        return getattr(head, 'num_classes', None)

    def layout(self, feats: Any) -> dict[str, Any]:
        """Shapes of all dense outputs on a dry run, kind of scores, priors and box coder.

        Heads without a dense grid (DETR) are described by their type alone and line up with nothing.
        """
        head = self.head
        if not hasattr(head, 'cls_out_channels') or not hasattr(head, 'prior_generator'):
            return {'dense head': f'none ({type(head).__name__})'}
        outputs = head(feats)
        coder = getattr(head, 'bbox_coder', None)
        return {
            'outputs': [[tuple(level.shape) for level in part] for part in outputs if isinstance(part, (list, tuple))],
            'classes': head.cls_out_channels,
            'sigmoid': self.sigmoid,
            'priors': _describe_priors(head.prior_generator),
            'box coder': (type(coder).__name__, getattr(coder, 'means', None), getattr(coder, 'stds', None)),
        }

    @property
    def with_mask(self) -> bool:
        """Whether the detector has a mask branch."""
        return bool(self.model.with_mask)

    @property
    def blend_obstacle(self) -> Optional[str]:
        """The final scores of a two-stage detector are not dense."""
        if getattr(self.model, 'roi_head', None) is None:
            return None
        return 'blend needs a one-stage detector: the scores of a two-stage one are not on a dense grid'

    def blend(self, outputs: Any, other: Any, alpha: float, samples: Sequence) -> Sequence:
        """Predicts from dense outputs that were blended before NMS; not for two-stage detectors."""
        mixed = tuple([(1 - alpha) * a + alpha * b for a, b in zip(p, q)] for p, q in zip(outputs, other))
        metas = [sample.metainfo for sample in samples]
        results = self.model.bbox_head.predict_by_feat(*mixed, batch_img_metas=metas, rescale=True)
        return self.model.add_pred_to_datasample(samples, results)

    def judge(self, feats: Any, inputs: Tensor, samples: Sequence) -> tuple[dict[str, Any], Any]:
        """Computes the detector's own losses, without its mask branch where the batch has no masks."""
        with self._without_mask_head(samples):
            return self.task_loss(feats, inputs, samples)

    @contextmanager
    def _without_mask_head(self, samples: Sequence) -> Iterator[None]:
        """A teacher with masks can judge features of a student that is trained on boxes: its box branch still can."""
        roi_head = getattr(self.model, 'roi_head', None)
        mask_head = getattr(roi_head, 'mask_head', None)
        if mask_head is None or 'masks' in samples[0].gt_instances:
            yield
            return
        roi_head.mask_head = None
        try:
            yield
        finally:
            roi_head.mask_head = mask_head


def _describe_priors(generator: Any) -> tuple:
    anchors = [base.tolist() for base in getattr(generator, 'base_anchors', ())]
    return type(generator).__name__, list(generator.strides), getattr(generator, 'offset', None), anchors
