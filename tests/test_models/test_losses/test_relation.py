import pytest
import torch
from hand_logits import hand_logits, sure_logits

from mmrkd.models.losses import relation_distance


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    'tau, expected', [(1.0, (0.481667, 0.530156, 2.023646)), (4.0, (7.725123, 8.977872, 33.405991))]
)
def test_relation_distance_by_hand(tau, expected):
    inter, intra = relation_distance(*hand_logits(), tau)
    assert (inter.item(), intra.item(), 2 * (inter + intra).item()) == pytest.approx(expected, abs=6e-7, rel=0)


def test_independent_scores_by_hand():
    assert sum(relation_distance(*hand_logits(), sigmoid=True)).item() == pytest.approx(1.072739, abs=6e-7, rel=0)


def test_it_is_pearson_of_rows_and_of_columns():
    z_s, z_t = randn(6, 5, seed=1), randn(6, 5, seed=2)
    p_s, p_t = z_s.softmax(1), z_t.softmax(1)
    rows = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(p_s, p_t)]).mean()
    columns = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(p_s.T, p_t.T)]).mean()
    inter, intra = relation_distance(z_s, z_t)
    assert (inter.item(), intra.item()) == pytest.approx((1 - rows.item(), 1 - columns.item()), abs=1e-5)
    assert abs(inter - intra) > 1e-3


@pytest.mark.parametrize('sigmoid', [False, True])
def test_equal_predictions_that_vary_have_no_loss(sigmoid):
    z = randn(8, 5).requires_grad_()
    terms = relation_distance(z, z, sigmoid=sigmoid)
    assert 0 <= min(terms) and max(terms) < 1e-5  # not less: 1e-8 is in the denominator


def test_classes_that_nobody_likes_hardly_count():
    z = 5 * randn(32, 1000)
    inter, intra = relation_distance(z, z)
    assert inter < 1e-4 and 0.05 < intra < 0.3  # at equal predictions, and no fault: see the docstring


def test_gradients_reach_the_student_and_not_the_teacher():
    z_s, z_t = hand_logits()
    for sigmoid in (False, True):
        for term in relation_distance(z_s, z_t, 2.0, sigmoid):
            assert torch.autograd.grad(term, z_s, retain_graph=True)[0].abs().max() > 1e-3
            assert torch.autograd.grad(term, z_t, retain_graph=True, allow_unused=True)[0] is None
    assert torch.autograd.gradcheck(lambda z: relation_distance(z, z_t, 2.0), z_s)


def test_nothing_to_correlate_is_left_out():
    z_s, z_t = hand_logits()
    inter, intra = relation_distance(z_s[:1], z_t[:1], 4.0)
    assert intra.item() == 0 and inter.item() > 0.1
    inter, intra = relation_distance(z_s[:, :1], z_t[:, :1], sigmoid=True)
    assert inter.item() == 0 and intra.item() > 0.001


def test_sure_predictions_stay_finite():
    z_s, z_t = sure_logits()
    for sigmoid in (False, True):
        terms = relation_distance(z_s, z_t, sigmoid=sigmoid)
        assert torch.isfinite(torch.stack(terms)).all()
        assert torch.isfinite(torch.autograd.grad(sum(terms), z_s)[0]).all()
    constant = torch.zeros(3, 4, requires_grad=True)
    terms = relation_distance(constant, z_t[:1].expand(3, 4))
    assert torch.isfinite(torch.autograd.grad(sum(terms), constant)[0]).all()


def test_float32_inside():
    z_s, z_t = (z.half() for z in hand_logits(torch.float32))
    found = relation_distance(z_s, z_t)
    assert found[0].dtype == torch.float32
    torch.testing.assert_close(found, relation_distance(z_s.float(), z_t.float()), rtol=0, atol=0)


def test_what_does_not_fit_is_refused():
    z_s, z_t = hand_logits()
    with pytest.raises(ValueError, match='tau must be > 0'):
        relation_distance(z_s, z_t, -1.0)
    with pytest.raises(ValueError, match='logits of one shape'):
        relation_distance(z_s, z_t[:2])
