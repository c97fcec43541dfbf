"""mmdet detectors: one-stage, two-stage, DETR-like, with or without masks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Optional

from torch import Tensor, nn

from mmrkd.adapters.base import ModelAdapter
from mmrkd.structures import Features

NOT_DENSE = ('roi_head', 'semantic_head')


class DetectionAdapter(ModelAdapter):
    """Any mmdet ``BaseDetector``. The distillable features are the levels that the neck gives."""

    detects = True

    def features(self, feats: Any) -> Features:
        """Returns the levels ``(N, C, H_l, W_l)``, mostly finest first."""
        levels = super().features(feats)
        if self._one_branch_predicts and self.model.training:  # its branches stand one after the other in the batch
            levels = tuple(f.chunk(self.model.num_branch)[self.model.test_branch_idx] for f in levels)
        return levels

    @property
    def _one_branch_predicts(self) -> bool:
        """Whether this is a TridentNet that trains several branches and predicts with one of them."""
        return getattr(self.model, 'test_branch_idx', -1) != -1

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
        with self._heads_in_training():
            return self.head_outputs(feats)

    def logits(self, outputs: tuple[list[Tensor], ...]) -> list[Tensor]:
        """Returns ``(N * H_l * W_l * A, K)`` for each level."""
        classes = self.head.cls_out_channels
        return [s.permute(0, 2, 3, 1).reshape(-1, classes) for s in outputs[0]]

    def boxes(self, outputs: tuple[list[Tensor], ...]) -> list[Tensor]:
        """Returns ``(N * H_l * W_l * A, 4 * box_bins)`` for each level.

        Raises:
            ValueError: The head regresses something else (the points of RepPoints).
        """
        values, classes = 4 * self.box_bins, self.head.cls_out_channels
        if any(b.shape[1] * classes != s.shape[1] * values for s, b in zip(*outputs[:2])):
            raise ValueError(
                f'{type(self.head).__name__} does not regress {values} values for each prediction, so there are no '
                'boxes to compare. Set w_box=0.'
            )
        return [b.permute(0, 2, 3, 1).reshape(-1, values) for b in outputs[1]]

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
        head = getattr(getattr(self.model, 'roi_head', None), 'bbox_head', self.head)
        head = head[-1] if isinstance(head, nn.ModuleList) else head
        return getattr(head, 'num_classes', None)

    def layout(self, feats: Any) -> dict[str, Any]:
        """Shapes of all dense outputs on a dry run, kind of scores, priors and box coder.

        Heads without a dense grid (DETR) are described by their type alone and line up with nothing.
        """
        head = self.head
        if self._one_branch_predicts:
            return {'dense head': 'several branches in training'}
        if getattr(head, 'prior_generator', None) is None or not hasattr(head, 'cls_out_channels'):
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
        """Computes the detector's own losses, without its mask branch where the batch has no masks.

        Raises:
            ValueError: The batch lacks ground truth that the detector cannot do without.
        """
        _check_ground_truth(self.model, samples[0])
        with self._heads_in_training(), self._without_mask_head(samples):
            return self.task_loss(feats, inputs, samples)

    @contextmanager
    def _heads_in_training(self) -> Iterator[None]:
        """A frozen detector computes its losses as it does in training, but learns, forgets and drops out nothing.

        Many detectors only return what their loss needs, or keep to the scale that it expects, while their ``training``
        is set (DINO, VFNet, FCOS). Layers (norms, dropout) have no children and stay as they are. Buffers that a loss
        updates (GHM, Seesaw) are put back.
        """
        children = [m for name, m in self.model.named_children() if name not in ('backbone', 'neck')]
        modules = [module for child in children for module in child.modules()]
        composed = [m for m in modules if any(m.children()) and not type(m).__module__.startswith('torch.')]
        if not self._one_branch_predicts:  # it would expect the features of all branches
            composed.append(self.model)
        flags = [module.training for module in composed]
        buffers = [(m, name, b, b._version, b.clone()) for m in modules for name, b in m.named_buffers(recurse=False)]
        try:
            for module in composed:
                module.training = True
            yield
        finally:
            for module, flag in zip(composed, flags):
                module.training = flag
            for module, name, buffer, version, saved in buffers:
                if getattr(module, name) is not buffer or buffer._version != version:
                    setattr(module, name, saved)

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


def _check_ground_truth(model: nn.Module, sample: Any) -> None:
    semantic = [m for m in (model, getattr(model, 'roi_head', None)) if getattr(m, 'semantic_head', None) is not None]
    others = [child for name, child in model.named_children() if name != 'roi_head']
    masks = hasattr(model, 'mask_head') or any(hasattr(m, 'loss_mask') for child in others for m in child.modules())
    missing = ['gt_instances.masks'] if masks and 'masks' not in sample.gt_instances else []
    missing += ['gt_sem_seg'] if semantic and 'gt_sem_seg' not in sample else []
    if missing:
        raise ValueError(
            f"TWI needs the ground truth of the teacher's own losses: {type(model).__name__} needs {missing}, and the "
            'data has none. Load it (LoadAnnotations with_mask, with_seg), or use features alone: ERA with '
            'twi_on="none" and w_kd=0, or FitNets'
        )


def _describe_priors(generator: Any) -> tuple:
    anchors = [base.tolist() for base in getattr(generator, 'base_anchors', ())]
    return type(generator).__name__, list(generator.strides), getattr(generator, 'offset', None), anchors
