import math

import pytest
import torch
from hand_logits import Z_S, Z_T, hand_logits

from mmrkd.models.losses import hard_ranks, rank_distance, soft_ranks, value_distance


@pytest.mark.parametrize('tau, expected', [(1.0, 0.443471), (4.0, 0.695611)])
def test_value_by_hand(tau, expected):
    assert 2 * value_distance(*hand_logits(), tau).item() == pytest.approx(expected, abs=1e-6)


def test_value_by_single_numbers():
    def probabilities(z):
        rows = [[math.exp(v / 4) for v in row] for row in z]
        return [[v / sum(row) for v in row] for row in rows]

    def cosine(a, b):
        return abs(sum(x * y for x, y in zip(a, b))) / (math.hypot(*a) * math.hypot(*b) + 1e-8)

    p_s, p_t = probabilities(Z_S), probabilities(Z_T)
    rows = sum(cosine(a, b) for a, b in zip(p_s, p_t)) / 3
    columns = sum(cosine(a, b) for a, b in zip(zip(*p_s), zip(*p_t))) / 4
    assert value_distance(*hand_logits(), 4.0).item() == pytest.approx(16 * (2 - rows - columns), rel=1e-9)


def test_value_at_equality_is_what_the_floor_leaves():
    z = hand_logits()[1].detach()
    p = z.softmax(1)
    expected = sum((1e-8 / p.square().sum(dim)).mean() for dim in (0, 1))
    assert value_distance(z, z, 1.0).item() == pytest.approx(expected.item(), rel=1e-3)


def test_ranks_by_hand():
    z_s, z_t = hand_logits()
    assert hard_ranks(z_s)[0].tolist() == [4, 3, 1, 2]
    assert 2 * rank_distance(z_s, z_t).item() == pytest.approx(0.933333, abs=1e-6)
    assert soft_ranks(z_s)[0, 0].item() == pytest.approx(3.171092, abs=1e-6)
    assert 2 * rank_distance(z_s, z_t, width=1.0).item() == pytest.approx(0.966033, abs=1e-6)
    assert not rank_distance(z_s, z_t).requires_grad, 'places have no gradient: in the release the term trains nothing'


def test_soft_ranks_become_places_where_the_width_is_small():
    z_s, z_t = hand_logits()
    torch.testing.assert_close(soft_ranks(z_s, 1e-3), hard_ranks(z_s))
    assert rank_distance(z_s, z_t, 1e-3).item() == pytest.approx(rank_distance(z_s, z_t).item(), abs=1e-9)
    assert rank_distance(z_s, z_s, 1.0).item() == pytest.approx(0, abs=1e-7)
    assert rank_distance(z_s, -z_s).item() == pytest.approx(2)


def test_gradients_reach_the_student_alone():
    z_s, z_t = hand_logits()
    (value_distance(z_s, z_t, 4.0) + rank_distance(z_s, z_t, 1.0)).backward()
    assert z_s.grad.abs().min() > 0 and z_t.grad is None
