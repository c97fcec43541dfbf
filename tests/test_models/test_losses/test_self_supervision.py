import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from mmrkd.models.losses import kept_kl, kept_rows, kl_divergence, turned_similarities

# Two images with their turned copies, row by row as 0, 90, 180 and 270 degrees of the first, then of the second.
G_S = torch.tensor([[1, 0], [1, 1], [0, 1], [-1, 1], [0, 1], [0, 2], [1, 1], [1, -1]], dtype=torch.float64)
G_T = torch.tensor([[1, 0], [2, 1], [-1, 2], [1, 1], [0, 1], [1, 2], [0, 1], [1, 0]], dtype=torch.float64)
Z_T = torch.tensor(
    [[3, 0, 0, 0], [2, 0, 1, 0], [0, 2, 1, 0], [1, 0, 0, 2], [0, 0, 3, 0], [0, 0, 2, 1], [2, 1, 0, 0], [0, 3, 1, 0]],
    dtype=torch.float64,
)
Z_S = 0.5 * Z_T + torch.tensor([0.1, 0, -0.1, 0.2], dtype=torch.float64)
Y = torch.tensor([0, 2])
ORIGINAL = torch.tensor([True, False, False, False] * 2)
OWN = torch.tensor([0, 0, 0, 1, 1, 1])


def similarities(g):
    return turned_similarities(g[~ORIGINAL], g[ORIGINAL])


def test_hand_numbers():
    s_s, s_t = similarities(G_S), similarities(G_T)
    kept_tf = kept_rows(Z_T[~ORIGINAL], Y.repeat_interleave(3), 1.0)
    kept_ss = kept_rows(s_t, OWN, 0.75)
    assert kept_tf.sum() == 6 and kept_ss.sum() == 5
    terms = [
        cross_entropy(Z_S[ORIGINAL], Y),
        kl_divergence(Z_S[ORIGINAL], Z_T[ORIGINAL], 4.0),
        kept_kl(Z_S[~ORIGINAL], Z_T[~ORIGINAL], kept_tf, 4.0),
        kept_kl(s_s, s_t, kept_ss, 0.5),
    ]
    found = [term.item() for term in terms]
    assert found == pytest.approx([0.544158, 0.295041, 0.124856, 0.065962], abs=1e-6)
    total = sum(w * term for w, term in zip((0.1, 0.9, 2.7, 10), found))
    assert total == pytest.approx(1.316682, abs=2e-6)
    assert cross_entropy(s_t, OWN).item() == pytest.approx(0.813703, abs=1e-6)


def test_similarities_are_cosines():
    found = similarities(G_T)
    for row, turned in enumerate(G_T[~ORIGINAL].tolist()):
        for column, original in enumerate(G_T[ORIGINAL].tolist()):
            product = sum(a * b for a, b in zip(turned, original))
            expected = product / math.hypot(*turned) / math.hypot(*original)
            assert found[row, column].item() == pytest.approx(expected)


def test_similarities_are_not_rounded_by_autocast():
    feats = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = turned_similarities(feats[:6], feats[6:])
        assert (feats[:6] @ feats[6:].T).dtype == torch.bfloat16
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, turned_similarities(feats[:6], feats[6:]))
    assert turned_similarities(feats[:6].bfloat16(), feats[6:].bfloat16()).dtype == torch.float32


def by_sorting(scores, targets, ratio):
    """The same with lists."""
    ranks = []
    for row, target in zip(scores.tolist(), targets.tolist()):
        ranks.append(sorted(range(len(row)), key=lambda k: -row[k]).index(target))
    wrong = [i for i, rank in enumerate(ranks) if rank]
    best = sorted(wrong, key=lambda i: ranks[i])[: int(len(wrong) * ratio)]
    return [not rank or i in best for i, rank in enumerate(ranks)]


@pytest.mark.parametrize('ratio', [0.0, 0.3, 0.5, 0.75, 1.0])
def test_the_best_of_the_wrong_ones_are_kept(ratio):
    scores = torch.randn(40, 5, generator=torch.Generator().manual_seed(1)).round(decimals=1)
    targets = torch.arange(40) % 5
    assert kept_rows(scores, targets, ratio).tolist() == by_sorting(scores, targets, ratio)


def test_of_equal_ranks_the_earlier_rows_are_kept():
    scores = torch.tensor([[0.0, 1.0]] * 4)
    assert kept_rows(scores, torch.zeros(4, dtype=torch.long), 0.5).tolist() == [True, True, False, False]
