import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from PIL import Image

from mmrkd.testing import detection_batch
from mmrkd.visualization import Found, compare_detections, compare_found, summary
from mmrkd.visualization.detections import GAINED, LOST, RENAMED, SAME, TRUTH
from mmrkd.visualization.differences import box_overlaps

A, B, C, D = [0, 0, 10, 10], [20, 0, 40, 10], [0, 50, 30, 80], [60, 60, 90, 90]


def found(*detections):
    boxes, labels, scores = zip(*detections) if detections else ([], [], [])
    return Found(np.array(boxes), np.array(labels), np.array(scores))


class TestDifferences:
    def test_each_kind(self):
        new = found((A, 1, 0.9), (B, 2, 0.8), (D, 4, 0.7))
        old = found((A, 1, 0.5), (B, 3, 0.6), (C, 5, 0.4))
        result = compare_found(new, old)  # the surest come first: of the old ones B, A, C
        assert (result.same, result.renamed, result.gained, result.lost) == ([0], {1: 0}, [2], [2])
        assert summary([result, result]) == '2 only here, 2 lost, 2 renamed'

    def test_the_own_class_goes_before_a_larger_overlap(self):
        near, here = [0, 0, 10, 9], A
        result = compare_found(found((A, 1, 0.9)), found((here, 2, 0.8), (near, 1, 0.7)))
        assert result.same == [0] and not result.renamed and result.lost == [0]

    def test_one_partner_each(self):
        result = compare_found(found((A, 1, 0.9), (A, 1, 0.8)), found((A, 1, 0.5)))
        assert result.same == [0] and result.gained == [1] and result.lost == []

    def test_half_an_overlap_is_enough_and_less_is_not(self):
        half, less = [0, 0, 10, 5], [0, 0, 10, 4.9]
        assert compare_found(found((half, 1, 0.9)), found((A, 1, 0.9))).same == [0]
        result = compare_found(found((less, 1, 0.9)), found((A, 1, 0.9)))
        assert result.gained == [0] and result.lost == [0]

    def test_nothing(self):
        assert compare_found(found(), found((A, 1, 0.9))).lost == [0]
        assert compare_found(found((A, 1, 0.9)), found()).gained == [0]
        assert summary([compare_found(found(), found())]) == '0 only here, 0 lost, 0 renamed'

    def test_overlaps(self):
        boxes = np.array([A, [5, 0, 15, 10], [3, 3, 3, 3]], dtype=float)
        expected = [[1, 50 / 150, 0], [50 / 150, 1, 0], [0, 0, 0]]
        assert box_overlaps(boxes, boxes) == pytest.approx(np.array(expected))


class Seer(torch.nn.Module):
    def __init__(self, *detections):
        super().__init__()
        self.found = found(*detections)

    def test_step(self, batch):
        (sample,) = batch['data_samples']
        parts = dict(bboxes=self.found.boxes, labels=self.found.labels, scores=self.found.scores)
        sample.pred_instances = InstanceData(**{k: torch.from_numpy(v) for k, v in parts.items()})
        return [sample]


class OneImage(list):
    metainfo = dict(classes=tuple('abcdef'))


def test_each_difference_has_its_colour(tmp_path):
    batch = detection_batch(1)
    sample = batch['data_samples'][0]
    sample.gt_instances = InstanceData(bboxes=torch.tensor([A], dtype=torch.float), labels=torch.tensor([1]))
    dataset = OneImage([dict(inputs=torch.zeros_like(batch['inputs'][0]), data_samples=sample)])
    alone = Seer((A, 1, 0.9), (B, 3, 0.8), (C, 5, 0.7))
    models = {'alone': alone, 'distilled': Seer((A, 1, 0.9), (B, 2, 0.8), (D, 4, 0.7)), 'same': alone}
    said = compare_detections(models, dataset, [0], str(tmp_path / 'x.png'), reference='alone')
    assert said == {'distilled': '1 only here, 1 lost, 1 renamed', 'same': '0 only here, 0 lost, 0 renamed'}
    picture = np.asarray(Image.open(tmp_path / 'x.png').convert('RGB')).astype(int)
    picture = picture[: int(picture.shape[0] * 0.85)]  # without the legend
    columns = np.array_split(picture, 4, axis=1)
    for colour, where in ((TRUTH, {0}), (SAME, {1, 2, 3}), (GAINED, {2}), (LOST, {2}), (RENAMED, {2})):
        value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        shown = {i for i, column in enumerate(columns) if (abs(column - value).max(axis=-1) < 3).sum() > 5}
        assert shown == where, colour
