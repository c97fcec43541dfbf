"""A detector as a product takes it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Optional

import torch
from torch import Tensor, nn

from mmrkd.adapters.decoding import clipped, decoder_of, decoding_obstacle, rows, take
from mmrkd.adapters.image_graph import Agreement, ImageGraph, largest_difference
from mmrkd.adapters.structure import tensors_in
from mmrkd.adapters.suppression import Suppression

CLOSE_SCORE, CLOSE_BOX = 1e-3, 0.1  # pixels
STRAY = 0.02  # share of detections that may have no partner: two of almost one score change places
POSSIBLE = (
    "Detections can be written of single-stage detectors whose head predicts as mmdet's dense heads do in common "
    '(RetinaNet, FCOS, ATSS, GFL, RTMDet, SSD, YOLOF)'
)


class HeadGraph(ImageGraph):
    """Images to the maps that the dense head of a single-stage detector gives, level by level and as they are.

    Args:
        adapter: Of the detector.
        size: ``(height, width)`` of the images.
    """

    def __init__(self, adapter: Any, size: Sequence[int]) -> None:
        from mmdet.models import SingleStageDetector

        super().__init__(adapter.model, size)
        if not isinstance(self.model, SingleStageDetector):
            raise ValueError(_refusal(self.model, 'it has no dense head that gives all it finds'))
        self.adapter = adapter
        with torch.no_grad():
            blank = torch.zeros(1, 3, *self.size, device=next(self.model.parameters()).device)
            self.maps = self.model.bbox_head(adapter.extract(self.prepared(blank)))
        self.names = tuple(f'output{number}' for number, _ in enumerate(tensors_in(self.maps)))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Returns the maps ``(N, C, H_l, W_l)`` of all outputs of the head, of each output level by level."""
        return tuple(tensors_in(self.model.bbox_head(self.adapter.extract(self.prepared(images)))))

    def samples(self, count: int) -> list:
        """Returns samples that say how large the images are."""
        from mmdet.structures import DetDataSample

        meta = dict(img_shape=self.size, ori_shape=self.size, scale_factor=(1.0, 1.0), batch_input_shape=self.size)
        return [DetDataSample(metainfo=dict(meta, img_id=number)) for number in range(count)]

    def agreement(self, found: Sequence[Tensor], images: Tensor) -> Agreement:
        """Compares the maps."""
        expected = list(tensors_in(self.framework(images, mode='tensor')))
        worst = largest_difference(found, expected)
        scale = max((float(level.abs().max()) for level in expected), default=1.0)
        return Agreement(worst <= CLOSE_SCORE * max(scale, 1.0), f'largest difference of a map {worst:.1e}')


class CandidatesGraph(HeadGraph):
    """Images to all boxes ``(N, P, 4)`` and their scores ``(N, P, K)``, before any of them is sorted out."""

    def __init__(self, adapter: Any, size: Sequence[int]) -> None:
        obstacle = decoding_obstacle(adapter.model)
        if obstacle:
            raise ValueError(_refusal(adapter.model, obstacle))
        super().__init__(adapter, size)
        self.names = ('boxes', 'scores')
        self.head: nn.Module = self.model.bbox_head
        self.decode = decoder_of(self.head)
        sizes = [level.shape[-2:] for level in self.maps[0]]
        priors = self.head.prior_generator.grid_priors(sizes, device=self.maps[0][0].device)
        for level, prior in enumerate(priors):
            self.register_buffer(f'priors{level}', getattr(prior, 'tensor', prior), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns boxes and scores."""
        parts = []
        for level, (scores, raw, factors) in enumerate(self.levels(images)):
            boxes = self.pixels(getattr(self, f'priors{level}'), raw, level)
            parts.append((boxes, scores if factors is None else scores * factors))
        return tuple(torch.cat(part, dim=1) for part in zip(*parts))

    def levels(self, images: Tensor) -> Iterator[tuple[Tensor, Tensor, Optional[Tensor]]]:
        """Yields for each level scores ``(N, P, K)``, what is regressed ``(N, P, D)`` and factors ``(N, P, 1)``."""
        outputs = self.head(self.adapter.extract(self.prepared(images)))
        columns = self.head.cls_out_channels
        for level, scores in enumerate(outputs[0]):
            width = int(outputs[1][level].shape[1]) * columns // int(scores.shape[1])  # of one prediction
            scores = rows(scores, columns)
            scores = scores.sigmoid() if self.head.use_sigmoid_cls else scores.softmax(-1)[..., :-1]
            factors = rows(outputs[2][level], 1).sigmoid() if len(outputs) > 2 else None
            yield scores, rows(outputs[1][level], width), factors

    def pixels(self, priors: Tensor, raw: Tensor, level: int) -> Tensor:
        """Returns boxes within the image."""
        boxes = self.decode(priors, raw, level)
        return clipped(boxes, self.size) if self.head.bbox_coder.clip_border else boxes

    def agreement(self, found: Sequence[Tensor], images: Tensor) -> Agreement:
        """Compares scores and coordinates in order of size: mmdet gives them in an order of its own."""
        boxes, scores = found
        everything = dict(score_thr=-1.0, nms_pre=scores[0].numel(), min_bbox_size=-1)
        found_sorted, expected_sorted = [], []
        metas = [sample.metainfo for sample in self.samples(len(images))]
        with torch.no_grad(), settings(self.head.test_cfg, **everything):
            maps = self.framework(images, mode='tensor')
            results = self.head.predict_by_feat(*maps, batch_img_metas=metas, rescale=False, with_nms=False)
        for image, result in enumerate(results):
            all_boxes = boxes[image].repeat_interleave(scores.shape[-1], dim=0)
            found_sorted += [scores[image].flatten().sort()[0], all_boxes.sort(dim=0)[0]]
            expected_sorted += [result.scores.sort()[0], result.bboxes.sort(dim=0)[0]]
        worst = [largest_difference(found_sorted[part::2], expected_sorted[part::2]) for part in (0, 1)]
        text = f'{scores[..., 0].numel()} boxes, largest difference {worst[0]:.1e} of a score, {worst[1]:.1e} pixels'
        return Agreement(worst[0] <= CLOSE_SCORE and worst[1] <= CLOSE_BOX, text)


class DetectionsGraph(CandidatesGraph):
    """Images to detections: boxes ``(N, M, 4)``, scores ``(N, M)``, labels ``(N, M)``, best first.

    M is ``max_per_img`` of the test settings; places that are left over have score 0 and label -1. Order and threshold
    of what is sorted out are those of mmdet: the best ``nms_pre`` scores above ``score_thr`` of each level, what
    multiplies them, ``min_bbox_size``, suppression class by class.

    Args:
        adapter: Of the detector.
        size: ``(height, width)`` of the images.
        score_thr: Defaults to that of the test settings.
    """

    def __init__(self, adapter: Any, size: Sequence[int], score_thr: Optional[float] = None) -> None:
        super().__init__(adapter, size)
        self.names = ('boxes', 'scores', 'labels')
        self.cfg = dict(self.head.test_cfg)
        if score_thr is not None:
            self.cfg['score_thr'] = score_thr

    def checkable(self) -> 'DetectionsGraph':
        """Returns the same with no threshold: of random images a trained model is sure of nothing."""
        return DetectionsGraph(self.adapter, self.size, score_thr=0.0)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns boxes, scores and labels."""
        levels = [self.best(level, *parts) for level, parts in enumerate(self.levels(images))]
        boxes, scores, labels = (torch.cat(parts, dim=1) for parts in zip(*levels))
        if self.cfg.get('min_bbox_size', -1) >= 0:
            large = (boxes[..., 2:] - boxes[..., :2] > self.cfg['min_bbox_size']).all(dim=-1)
            scores = scores * large
        scores = scores * self.kept(boxes, scores, labels)
        most = self.cfg.get('max_per_img', -1)
        count = int(scores.shape[1])
        scores, index = scores.topk(min(most, count) if most > 0 else count, dim=1)
        found = scores > 0
        labels = torch.where(found, labels.gather(1, index), torch.full_like(index, -1))
        return take(boxes, index) * found[..., None], scores, labels

    def best(self, level: int, scores: Tensor, raw: Tensor, factors: Optional[Tensor]) -> tuple[Tensor, ...]:
        """Returns the best candidates of a level, ``k`` for each image: boxes, scores (0 below the threshold), labels.

        Boxes are decoded for these alone.
        """
        priors, classes = int(scores.shape[1]), int(scores.shape[2])
        most = self.cfg.get('nms_pre', -1)
        every = priors * classes
        best, index = scores.reshape(-1, every).topk(min(most, every) if most > 0 else every, dim=1)
        prior, labels = torch.div(index, classes, rounding_mode='floor'), index % classes
        boxes = self.pixels(getattr(self, f'priors{level}')[prior], take(raw, prior), level)
        above = best > self.cfg.get('score_thr', 0)
        if factors is not None:
            best = best * take(factors, prior).squeeze(-1)
        return boxes, best * above, labels

    def kept(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
        """Returns 1 for what survives suppression and 0 for the rest, ``(N, P)``.

        Boxes of different classes are moved apart, so that they do not meet.
        """
        nms = self.cfg['nms']
        if not nms.get('class_agnostic', False):
            boxes = boxes + labels[..., None] * (boxes.amax(dim=(1, 2), keepdim=True) + 1)
        count = int(scores.shape[1])
        chosen = Suppression.apply(boxes, scores, float(nms['iou_threshold']), count)
        flat = torch.zeros_like(scores).reshape(-1)
        index = chosen[:, 0] * count + chosen[:, 2]
        return flat.scatter(0, index, torch.ones_like(index, dtype=scores.dtype)).reshape(-1, count)

    def agreement(self, found: Sequence[Tensor], images: Tensor) -> Agreement:
        """Compares each detection with the one of the same label that lies where it lies."""
        with settings(self.head.test_cfg, score_thr=self.cfg.get('score_thr', 0)):
            samples = self.framework(images)
        total = stray = 0
        worst = [0.0, 0.0]
        for image, sample in enumerate(samples):
            present = found[2][image] >= 0
            ours = [part[image][present] for part in found]
            truth = sample.pred_instances
            theirs = truth.bboxes, truth.scores, truth.labels
            pairs, left = partners(ours, theirs)
            total, stray = total + max(len(theirs[1]), len(ours[1])), stray + left
            worst = [max(before, now) for before, now in zip(worst, pairs)]
        text = (
            f'{total} detections, largest difference {worst[0]:.1e} of a score, {worst[1]:.1e} pixels, '
            f'{stray} without partner'
        )
        return Agreement(stray <= STRAY * total, text)


def partners(found: Sequence[Tensor], expected: Sequence[Tensor]) -> tuple[list[float], int]:
    """Pairs detections of one image, each with the nearest of its label that has its score.

    Args:
        found: Boxes ``(M, 4)``, scores ``(M,)``, labels ``(M,)``.
        expected: The same.

    Returns:
        The largest differences of score and coordinate within the pairs, and how many on either side have no partner.
    """
    distance = (found[0][:, None] - expected[0][None]).abs().amax(dim=-1)
    score = (found[1][:, None] - expected[1][None]).abs()
    possible = (distance <= CLOSE_BOX) & (score <= CLOSE_SCORE) & (found[2][:, None] == expected[2][None])
    free = torch.ones(len(expected[1]), dtype=torch.bool)
    worst, paired = [0.0, 0.0], 0
    for row in range(len(found[1])):
        candidates = (possible[row] & free).nonzero().squeeze(1)
        if len(candidates):
            nearest = candidates[(distance[row, candidates] + score[row, candidates]).argmin()]
            free[nearest] = False
            paired += 1
            worst = [max(worst[0], float(score[row, nearest])), max(worst[1], float(distance[row, nearest]))]
    return worst, max(len(found[1]), len(expected[1])) - paired


@contextmanager
def settings(cfg: Any, **values: Any) -> Iterator[None]:
    """Sets entries of a config inside one ``with`` block."""
    before = {name: cfg[name] for name in values if name in cfg}
    cfg.update(values)
    try:
        yield
    finally:
        for name in values:
            cfg.pop(name)
        cfg.update(before)


def _refusal(model: nn.Module, reason: str) -> str:
    return (
        f'{type(model).__name__} cannot be written to ONNX with its post-processing: {reason}. {POSSIBLE}; of any '
        'detector with one dense head, the maps that its head gives (--outputs head). For the others, mmdeploy takes '
        'the exported plain config and checkpoint.'
    )
