"""A scene of ten objects, written down as each dense head of mmdet would regress it.

What the outputs of a head mean is taken from what it predicts: the head's own ``predict_by_feat`` must find the very
objects in the outputs that are made here. Nothing of this is asked of the adapters that are tested with it.
"""

import torch
from mmengine.config import ConfigDict

SURE, MISSED, NOTHING = 7.0, -7.0, -12.0  # logits of an object that is seen, of one that is not, of the background
TEST_CFG = ConfigDict(
    dict(nms_pre=100000, score_thr=0.05, conf_thr=-1, min_bbox_size=0, max_per_img=100),
    nms=dict(type='nms', iou_threshold=0.5),
    iou_thr=0.5,  # of YOLACT
    top_k=100,
    mask_thr_binary=0.5,  # of RTMDet-Ins
)
GEOMETRIC = ('PAAHead',)  # the score is the square root of the product: both must be low
OBJECTNESS = ('YOLOXHead', 'YOLOV3Head', 'AutoAssignHead')  # background is where it is low, whatever the class


def kind_of(head):
    """How the head writes a box down."""
    names = [base.__name__ for base in type(head).__mro__]
    table = dict(
        YOLOXHead='yolox',
        YOLOV3Head='yolov3',
        TOODHead='corners',
        GFLHead='bins',
        RepPointsHead='points',
        FoveaHead='logarithms',
        CenterNetUpdateHead='strides',
        AutoAssignHead='pixels',
        RTMDetHead='pixels',
        VFNetHead='pixels',
        FCOSHead='strides' if getattr(head, 'norm_on_bbox', False) else 'pixels',
    )
    return next((table[name] for name in names if name in table), 'coder')


class Scene:
    """Ten boxes of ten classes on one image, each at the prior of the first level that is nearest to it."""

    def __init__(self, adapter):
        self.head, self.kind = adapter.head, kind_of(adapter.head)
        self.legacy = type(getattr(self.head, 'bbox_coder', None)).__name__.startswith('Legacy')  # a pixel wider
        self.size, self.classes = adapter.dry_size, self.head.num_classes
        with adapter.evaluating():
            outputs = adapter.training_outputs(adapter.dry_feats)
        self.maps, self.whole = outputs[0], [part[:1] * 0 for part in outputs if isinstance(part, torch.Tensor)]
        self.grids = [level.shape[-2:] for level in self.maps]
        self.strides = [s if isinstance(s, (tuple, list)) else (s, s) for s in self.head.prior_generator.strides]
        priors = self.head.prior_generator.grid_priors(self.grids, device='cpu')
        self.priors = priors[0].view(*self.grids[0], -1, priors[0].shape[-1])
        columns = 5 + self.classes if self.kind == 'yolov3' else self.head.cls_out_channels
        self.anchors = [level.shape[1] // columns for level in self.maps]
        self.extra = [[level.shape[1] for level in part] for part in outputs[2:] if isinstance(part, (list, tuple))]
        self.softmax = not getattr(self.head, 'use_sigmoid_cls', True) and self.kind not in ('yolox', 'yolov3')
        w, h = self.size / 5, self.size / 2
        corners = torch.tensor([[x * w, y * h, (x + 1) * w, (y + 1) * h] for y in range(2) for x in range(5)])
        self.boxes = corners + torch.tensor([0.1 * w, 0.1 * h, -0.1 * w, -0.1 * h])

    def places(self):
        """``(row, column, anchor, class)`` of each object."""
        w, h = self.strides[0]
        for index, (x, y) in enumerate(((self.boxes[:, :2] + self.boxes[:, 2:]) / 2).tolist()):
            yield int(y // h), int(x // w), index % self.anchors[0], index % self.classes

    def write(self, seen=True, scale=1.0, missing=()):
        """Returns outputs in the form of training.

        Args:
            seen: Whether the objects are surely seen, or surely missed.
            scale: Factor on the size of the boxes, about their centres.
        """
        centre, half = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2, (self.boxes[:, 2:] - self.boxes[:, :2]) / 2
        boxes = torch.cat([centre - half * scale, centre + half * scale], dim=1)
        scores, regressed, factors = self._blank()
        for (row, column, anchor, label), box in zip(self.places(), boxes):
            scores[0][0, anchor, :, row, column] = self._score(label, seen)
            low = self._is(OBJECTNESS + GEOMETRIC)
            factors[0][0, anchor, row, column] = SURE + 5 if seen or not low else MISSED
            regressed[0][0, anchor, :, row, column] = self._box(box, row, column, anchor)
        return self._packed(scores, regressed, factors)

    def _is(self, names):
        return any(base.__name__ in names for base in type(self.head).__mro__)

    def _score(self, label, seen):
        if self.softmax:
            values = torch.zeros(self.classes + 1)
            values[label if seen else -1] = SURE + 2
            return values
        values = torch.full((self.classes,), NOTHING)
        values[label] = SURE if seen or self._is(OBJECTNESS) else MISSED
        return values

    def _blank(self):
        scores, boxes, factors = [], [], []
        values = 4 * (self.head.reg_max + 1) if self.kind == 'bins' else 18 if self.kind == 'points' else 4
        for (h, w), anchors in zip(self.grids, self.anchors):
            level = torch.full((1, anchors, self.classes + self.softmax, h, w), 0.0 if self.softmax else NOTHING)
            if self.softmax:
                level[:, :, -1] = SURE + 5
            if self._is(OBJECTNESS):
                level[:] = 3.0
            scores.append(level)
            boxes.append(torch.zeros(1, anchors, values, h, w))
            factors.append(torch.full((1, anchors, h, w), NOTHING if self._is(OBJECTNESS + GEOMETRIC) else 0.0))
        return scores, boxes, factors

    def _box(self, box, row, column, anchor):
        (w, _), prior = self.strides[0], self.priors[row, column, anchor]
        point = prior[:2] if len(prior) == 2 else (prior[:2] + prior[2:]) / 2
        sides = torch.cat([point - box[:2], box[2:] - point])
        size, centre = box[2:] - box[:2], (box[:2] + box[2:]) / 2
        if self.kind == 'yolov3':
            encoded = self.head.bbox_coder.encode(prior[None], box[None], w)[0]
            return torch.cat([encoded[:2].logit(), encoded[2:]])
        if self.kind == 'coder':
            return self.head.bbox_coder.encode(prior[None], box[None])[0]
        return dict(
            pixels=lambda: sides,
            strides=lambda: sides / w,
            logarithms=lambda: (sides / self.head.base_edge_list[0]).log(),
            corners=lambda: box / w,
            yolox=lambda: torch.cat([(centre - point) / w, (size / w).log()]),
            bins=lambda: torch.zeros(4 * (self.head.reg_max + 1)),
            points=lambda: torch.zeros(18),
        )[self.kind]()

    def _packed(self, scores, boxes, factors):
        if self.kind == 'yolov3':
            parts = [torch.cat([b, f[:, :, None], s], dim=2).flatten(1, 2) for s, b, f in zip(scores, boxes, factors)]
            return (parts,)
        scores, boxes = ([level.flatten(1, 2) for level in part] for part in (scores, boxes))
        if self.kind == 'corners':
            scores = [level.sigmoid() for level in scores]
        rest = [[torch.zeros(1, c, *grid) for c, grid in zip(part, self.grids)] for part in self.extra]
        if rest and self.extra[0] == self.anchors:
            rest[0] = factors
        elif rest and self.extra[0] == [level.shape[1] for level in boxes]:
            rest[0] = boxes  # refined boxes
        return (scores, boxes, *rest, *self.whole)

    def predicted(self, outputs):
        """What the head itself finds in such outputs: boxes, scores, labels."""
        outputs = list(outputs)
        if self.kind == 'strides':
            outputs[1] = [level * w for level, (w, _) in zip(outputs[1], self.strides)]
        if type(self.head).__name__ == 'VFNetHead':
            outputs = [outputs[0], outputs[2]]
        if self.kind == 'points':  # in evaluation it makes boxes of them
            outputs = [outputs[0], [level[:, :4] + torch.tensor([-1, -1, 1, 1]).view(4, 1, 1) for level in outputs[1]]]
        if type(self.head).__name__ in ('SSDHead', 'PISASSDHead'):
            self.head.loss_cls = None  # without, mmdet's own prediction ends in an AttributeError
        shape = (self.size, self.size)
        meta = dict(img_shape=shape, batch_input_shape=shape, pad_shape=shape, scale_factor=(1.0, 1.0))
        outputs = [[level.clone() for level in part] if isinstance(part, (list, tuple)) else part for part in outputs]
        found = self.head.predict_by_feat(*outputs, batch_img_metas=[meta], cfg=TEST_CFG, rescale=False)[0]
        return found[found.scores > 0.05]  # not every head asks for the score that it reports
