import math
import statistics

import pytest
import torch
from map_numbers import agrees_in_double, gradients

from mmrkd.models.losses import box_kl, valuable_region

B_S = torch.tensor([[0.0, 1, 2], [1, 0, -1], [0.5, 0.5, 0], [0, 0, 0]]).reshape(1, 12)
B_T = torch.tensor([[0.0, 2, 1], [2, 0, -1], [0, 0.5, 0], [1, 0, 0]]).reshape(1, 12)


def test_numbers_worked_out_by_hand():
    assert box_kl(B_S, B_T, 3, 1.0, 'sum').item() == pytest.approx(0.162990, abs=1e-6)
    assert box_kl(B_S, B_T, 3, 10.0, 'sum').item() == pytest.approx(0.152175, abs=2e-6)
    assert 0.25 * 0.6 * box_kl(B_S, B_T, 3, 10.0).item() == pytest.approx(0.007609, abs=1e-6)
    assert agrees_in_double(lambda s, t: box_kl(s, t, 3, 1.0), B_S, B_T)
    two = box_kl(torch.cat([B_S, B_T]), torch.cat([B_T, B_T]), 3, 1.0, 'sum')
    assert two.tolist() == pytest.approx([0.162990, 0.0], abs=1e-6)
    assert box_kl(B_S[:0], B_T[:0], 3, 1.0).shape == (0,)


def test_gradient_on_the_student_alone():
    own, others = gradients(lambda s, t: box_kl(s, t, 3, 10.0).sum(), B_S, B_T)
    assert own.abs().sum() > 0.1 and others is None
    assert own.reshape(4, 3).sum(1).abs().max() < 1e-6, 'what is added to all bins of a side changes nothing'


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="reduction must be 'sum' or 'mean'"):
        box_kl(B_S, B_T, 3, 1.0, 'max')
    with pytest.raises(ValueError, match='tau must be > 0'):
        box_kl(B_S, B_T, 3, 0.0)
    with pytest.raises(ValueError, match='do not add up to 2'):
        valuable_region(torch.zeros(2, 4), [1], torch.zeros(1, 4))


def iou_and_diou(a, g):
    width, height = (max(0.0, min(a[i + 2], g[i + 2]) - max(a[i], g[i])) for i in (0, 1))
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (a, g)]
    iou = width * height / (sum(areas) - width * height)
    hull = sum((max(a[i + 2], g[i + 2]) - min(a[i], g[i])) ** 2 for i in (0, 1))
    return iou, iou - distance(a, g) ** 2 / hull


def distance(a, g):
    return math.hypot(*((a[i] + a[i + 2] - g[i] - g[i + 2]) / 2 for i in (0, 1)))


def region(levels, gt):
    """With loops over anchors and objects."""
    worth = [0.0] * sum(map(len, levels))
    for g in gt:
        near = [iou_and_diou(a, g)[0] for anchors in levels for a in sorted(anchors, key=lambda a: distance(a, g))[:9]]
        threshold = statistics.mean(near) + statistics.stdev(near)
        for index, a in enumerate(a for anchors in levels for a in anchors):
            iou, diou = iou_and_diou(a, g)
            if 0.25 * threshold <= diou < threshold:
                worth[index] = max(worth[index], iou)
    return worth


def test_region_against_loops():
    levels = []
    for stride, cells in ((8, 12), (16, 6), (32, 2)):  # of the last level there are only four
        centres = [(i * stride, j * stride) for j in range(cells) for i in range(cells)]
        levels.append([[x - 4 * stride, y - 4 * stride, x + 4 * stride, y + 4 * stride] for x, y in centres])
    gt = [[10.3, 5.1, 70.2, 61.7], [40.4, 30.9, 95.0, 90.6], [2.0, 60.5, 30.7, 88.1]]
    anchors = torch.tensor([a for level in levels for a in level], dtype=torch.double)
    found = valuable_region(anchors, [len(level) for level in levels], torch.tensor(gt, dtype=torch.double))
    expected = torch.tensor(region(levels, gt), dtype=torch.double)
    torch.testing.assert_close(found, expected)
    assert 5 < (found > 0).sum() < len(found) - 5


def test_without_objects_nothing_is_of_worth():
    assert valuable_region(torch.rand(5, 4), [3, 2], torch.zeros(0, 4)).tolist() == [0.0] * 5
    one = valuable_region(torch.tensor([[0.0, 0, 4, 4]]), [1], torch.tensor([[0.0, 0, 4, 2]]))
    assert one.isfinite().all(), 'one anchor has no deviation'
