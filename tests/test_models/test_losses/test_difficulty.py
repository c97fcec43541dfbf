"""Difficulty of pixels: the worked numbers of RDD, and what has no pixels at all."""

import math

import pytest
import torch

from mmrkd.models.losses import (
    combined_pixels,
    difficulty_weight,
    hard_pixels,
    mask_average,
    mask_shares,
    true_class_probability,
)

STUDENT = torch.tensor([0.9, 0.6, 0.5, 0.95])
TEACHER = torch.tensor([0.95, 0.9, 0.6, 0.65])
ALL = torch.ones(4, dtype=torch.bool)


def maps(*probabilities):
    """Logits ``(1, K, 1, 1)`` of given probabilities."""
    return torch.tensor(probabilities).log().reshape(1, -1, 1, 1)


def places(mask):
    """Counted from 1, as the paper's example does."""
    return [index + 1 for index, inside in enumerate(mask.tolist()) if inside]


def test_the_weight_of_a_pixel_that_the_heads_disagree_about():
    weight = difficulty_weight(maps(0.9, 0.1), maps(0.5, 0.5))
    assert weight.shape == (1, 1, 1)
    assert weight.item() == pytest.approx(0.6, abs=1e-6)
    assert -weight.log().item() == pytest.approx(0.510826, abs=1e-6)
    other = difficulty_weight(maps(0.5, 0.5), maps(0.9, 0.1))
    kl = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert other.item() == pytest.approx(math.exp(-kl), abs=1e-6), 'the auxiliary head is the target'


def test_heads_that_agree_find_a_pixel_easy_and_the_weight_has_no_gradient():
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    weight = difficulty_weight(logits, logits + 7)
    assert torch.allclose(weight, torch.ones(2, 4, 5), atol=1e-5) and bool((weight <= 1).all())
    assert not weight.requires_grad


@pytest.mark.parametrize(
    'combination, inside, average',
    [('xor', [2, 4], 0.281059), ('or', [2, 3, 4], 0.418422), ('and', [3], 0.693147), ('student', [2, 3], 0.601986)],
)
def test_four_pixels(combination, inside, average):
    student, teacher = (hard_pixels(p, ALL, 0.7, min_kept=1) for p in (STUDENT, TEACHER))
    assert places(student) == [2, 3] and places(teacher) == [3, 4]
    mask = combined_pixels(student, teacher, combination)
    assert places(mask) == inside
    assert mask_average(-STUDENT.log(), mask).item() == pytest.approx(average, abs=1e-6)


def test_so_many_are_kept_in_any_case():
    student, teacher = (hard_pixels(p, ALL, 0.7, min_kept=3) for p in (STUDENT, TEACHER))
    assert places(student) == [1, 2, 3] and places(teacher) == [2, 3, 4]
    mask = combined_pixels(student, teacher)
    assert places(mask) == [1, 4]
    assert mask_average(-STUDENT.log(), mask).item() == pytest.approx(0.078327, abs=1e-6)


def test_fewer_pixels_than_are_to_be_kept():
    assert places(hard_pixels(STUDENT, ALL, 0.7, min_kept=100)) == [1, 2, 3, 4]
    valid = torch.tensor([True, False, False, True])
    assert places(hard_pixels(STUDENT, valid, 0.7, min_kept=3)) == [1, 4]
    assert places(hard_pixels(STUDENT, ~ALL, 0.7, min_kept=3)) == []
    assert hard_pixels(STUDENT[:0], ALL[:0]).shape == (0,)


def test_ignored_pixels_count_for_nothing():
    """Of the two that are left the less probable one is at 0.9."""
    valid = torch.tensor([True, False, False, True])
    assert places(hard_pixels(STUDENT, valid, 0.7, min_kept=1)) == [1]
    assert places(hard_pixels(STUDENT, valid, 0.7, min_kept=0)) == []


def test_an_empty_mask_gives_zero_and_no_nan():
    values = torch.tensor([1.0, float('nan')], requires_grad=True)
    nothing = torch.zeros(2, dtype=torch.bool)
    average = mask_average(values, nothing)
    average.backward()
    assert average.item() == 0 and values.grad.tolist() == [0, 0]
    assert mask_shares(nothing, torch.ones(2)).tolist() == [0, 0]


def test_an_average_by_class_and_its_gradient():
    values = torch.tensor([2.0, 4.0, float('nan')], requires_grad=True)
    mask, weights = torch.tensor([True, True, False]), torch.tensor([1.0, 3.0, 100.0])
    average = mask_average(values, mask, weights)
    average.backward()
    assert average.item() == pytest.approx((2 + 3 * 4) / 4)
    assert values.grad.tolist() == [0.25, 0.75, 0]


def test_the_probability_of_the_true_class():
    logits = torch.tensor([[[0.9, 0.2]], [[0.1, 0.8]]]).log().unsqueeze(0)  # (1, 2, 1, 2)
    labels = torch.tensor([[[0, 1]]])
    assert true_class_probability(logits, labels, labels < 2).flatten().tolist() == pytest.approx([0.9, 0.8])
    ignored = torch.tensor([[[0, 255]]])
    assert true_class_probability(logits, ignored, ignored < 2)[0, 0, 0].item() == pytest.approx(0.9)


def test_other_combinations_are_refused():
    with pytest.raises(ValueError, match="combination must be one of .*found 'nand'"):
        combined_pixels(ALL, ALL, 'nand')
