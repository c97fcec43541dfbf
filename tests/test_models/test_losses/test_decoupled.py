import pytest
import torch
from hand_logits import LABELS, hand_logits, sure_logits

from mmrkd.models.losses import decoupled_kl, grouped_kl, kl_divergence, ranked_groups


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loops(z_s, z_t, classes, tau):
    """High and inner terms of one sample, straight from the definition; classes: a list of indices for each group."""
    p_s, p_t = ((z / tau).exp() / (z / tau).exp().sum() for z in (z_s, z_t))
    high, inner = 0.0, []
    for group in classes:
        mass_s, mass_t = (sum(p[c] for c in group) for p in (p_s, p_t))
        high = high + mass_t * torch.log(mass_t / mass_s)
        inner.append(sum(p_t[c] / mass_t * torch.log(p_t[c] / mass_t / (p_s[c] / mass_s)) for c in group))
    return [tau**2 * term for term in (high, *inner)]


@pytest.mark.parametrize(
    'tau, alpha, beta, expected',
    [(4.0, 1.0, 8.0, (0.063481, 0.192286, 1.601768)), (1.0, 1.0, 0.5, (0.069521, 0.171095, 0.155069))],
)
@pytest.mark.parametrize('dtype, error', [(torch.float32, 1e-5), (torch.float64, 6e-7)])
def test_decoupled_kl_by_hand(tau, alpha, beta, expected, dtype, error):
    tckd, nckd = decoupled_kl(*hand_logits(dtype), LABELS, tau)
    found = (tckd.item(), nckd.item(), (alpha * tckd + beta * nckd).item())
    assert found == pytest.approx(expected, abs=error, rel=0) and tckd.dtype == dtype


@pytest.mark.parametrize('tau', [1.0, 4.0])
def test_kl_is_the_sum_of_its_parts_for_each_sample(tau):
    z_s, z_t = hand_logits()
    for n in range(len(z_s)):
        row = slice(n, n + 1)
        target, other = decoupled_kl(z_s[row], z_t[row], LABELS[row], tau)
        p = (z_t[n] / tau).softmax(0)[LABELS[n]]
        whole = kl_divergence(z_s[row], z_t[row], tau)
        assert (target + (1 - p) * other).item() == pytest.approx(whole.item(), rel=1e-9) and whole > 1e-3


def test_two_classes_have_no_order_of_the_others():
    target, other = decoupled_kl(randn(5, 2), randn(5, 2, seed=1), torch.tensor([0, 1, 1, 0, 1]), 2.0)
    assert other.item() == 0 and target > 1e-3


@pytest.mark.parametrize(
    'tau, weights, expected',
    [
        (4.0, (1, 2, 8), (0.062184, 0.192298, 0.074792, 1.045116)),
        (1.0, (0.5, 1, 1), (0.043909, 0.173984, 0.066727, 0.262666)),
    ],
)
def test_two_groups_by_hand(tau, weights, expected):
    z_s, z_t = hand_logits()
    terms = grouped_kl(z_s, z_t, ranked_groups(z_t, 2), tau)
    total = sum(w * term for w, term in zip(weights, terms))
    assert [term.item() for term in (*terms, total)] == pytest.approx(expected, abs=6e-7, rel=0)


def test_three_groups_by_hand():
    z_s, z_t = hand_logits()
    high, first, middle, rest = grouped_kl(z_s, z_t, ranked_groups(z_t, 3, groups=3), 4.0)
    assert (high.item(), middle.item()) == pytest.approx((0.199827, 0.007485), abs=6e-7, rel=0)
    assert (high + 2 * middle + 8 * rest).item() == pytest.approx(0.214796, abs=6e-7, rel=0)
    assert first.item() == 0 and rest.item() == 0  # groups of one class


@pytest.mark.parametrize('groups', [2, 3])
@pytest.mark.parametrize('best', [True, False])
def test_groups_by_loops_and_their_sum_is_kl(groups, best):
    z_s, z_t, tau = randn(1, 7, seed=1), 2 * randn(1, 7, seed=2), 1.5
    order = sorted(range(7), key=lambda c: -z_t[0, c].item() if best else z_t[0, c].item())
    classes = [order[:4], order[4:]] if groups == 2 else [order[:1], order[1:4], order[4:]]
    masks = ranked_groups(z_t, 4, groups, best)
    assert [sorted(mask[0].nonzero().flatten().tolist()) for mask in masks] == [sorted(group) for group in classes]
    terms = grouped_kl(z_s, z_t, masks, tau)
    torch.testing.assert_close(
        torch.stack(terms), torch.stack([*map(torch.as_tensor, by_loops(z_s[0], z_t[0], classes, tau))])
    )
    p = (z_t[0] / tau).softmax(0)
    whole = terms[0] + sum(p[group].sum() * inner for group, inner in zip(classes, terms[1:]))
    assert whole.item() == pytest.approx(kl_divergence(z_s, z_t, tau).item(), rel=1e-9)


def test_one_class_set_apart_is_dkd_on_the_choice_of_the_teacher():
    z_s, z_t = randn(6, 5, seed=3), randn(6, 5, seed=4)
    high, top, other = grouped_kl(z_s, z_t, ranked_groups(z_t, 1), 2.0)
    assert top.item() == 0
    torch.testing.assert_close((high, other), decoupled_kl(z_s, z_t, z_t.argmax(dim=1), 2.0))


def test_directions_turn_the_inner_terms_and_leave_the_high_one():
    z_s, z_t = randn(4, 6, seed=5), 2 * randn(4, 6, seed=6)
    masks = ranked_groups(z_t, 3)
    forward, reverse, both = (grouped_kl(z_s, z_t, masks, 1.0, kl=kl) for kl in ('forward', 'reverse', 'both'))
    turned = grouped_kl(z_t, z_s, masks, 1.0)
    torch.testing.assert_close(reverse[1:], turned[1:])
    assert not torch.allclose(torch.stack(forward[1:]), torch.stack(reverse[1:]), rtol=0.01)
    torch.testing.assert_close(torch.stack(both[1:]), (torch.stack(forward[1:]) + torch.stack(reverse[1:])) / 2)
    assert forward[0] == reverse[0] == both[0]


@pytest.mark.parametrize('kl', ['forward', 'reverse', 'both'])
def test_equal_logits_have_no_loss_and_no_gradient(kl):
    z = randn(4, 6).requires_grad_()
    terms = grouped_kl(z, z, ranked_groups(z, 2), 4.0, kl)
    terms += decoupled_kl(z + 3.0, z, torch.tensor([0, 1, 2, 3]), 4.0)  # a shift of all logits is none
    assert torch.stack(terms).abs().max() < 1e-12
    assert torch.autograd.grad(sum(terms), z)[0].abs().max() < 1e-12


def test_gradients_reach_the_student_and_not_the_teacher():
    z_s, z_t = hand_logits()
    terms = (*decoupled_kl(z_s, z_t, LABELS, 4.0), *grouped_kl(z_s, z_t, ranked_groups(z_t, 2), 4.0, 'both'))
    for term in terms:
        assert torch.autograd.grad(term, z_s, retain_graph=True)[0].abs().max() > 1e-3
        assert torch.autograd.grad(term, z_t, retain_graph=True, allow_unused=True)[0] is None


def test_gradients_are_those_of_the_values():
    z_s, z_t = hand_logits()
    masks = ranked_groups(z_t, 2)
    assert torch.autograd.gradcheck(lambda z: grouped_kl(z, z_t, masks, 2.0, 'both'), z_s)
    assert torch.autograd.gradcheck(lambda z: decoupled_kl(z, z_t, LABELS, 2.0), z_s)


def test_sure_predictions_stay_finite():
    z_s, z_t = sure_logits()
    assert (z_s.softmax(1)[0, 2] == 0) and (z_t.softmax(1)[1, 1:] == 0).all()  # what the logarithm of a sum would meet
    terms = (*decoupled_kl(z_s, z_t, torch.tensor([2, 0]), 1.0), *grouped_kl(z_s, z_t, ranked_groups(z_t, 3), 1.0))
    assert torch.isfinite(torch.stack(terms)).all() and max(terms) > 100
    assert torch.isfinite(torch.autograd.grad(sum(terms), z_s)[0]).all()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_float32_inside(dtype):
    z_s, z_t = (z.to(dtype) for z in hand_logits(torch.float32))
    found = decoupled_kl(z_s, z_t, LABELS, 4.0)
    assert found[0].dtype == torch.float32
    torch.testing.assert_close(found, decoupled_kl(z_s.float(), z_t.float(), LABELS, 4.0), rtol=0, atol=0)


def test_what_does_not_fit_is_refused():
    z_s, z_t = hand_logits()
    with pytest.raises(ValueError, match='one label for each of 3 samples'):
        decoupled_kl(z_s, z_t, LABELS[:2], 1.0)
    with pytest.raises(ValueError, match='tau must be > 0'):
        decoupled_kl(z_s, z_t, LABELS, 0.0)
    with pytest.raises(ValueError, match='logits of one shape'):
        decoupled_kl(z_s, z_t[:, :3], LABELS, 1.0)
    with pytest.raises(ValueError, match='none of them empty'):
        decoupled_kl(z_s[:, :1], z_t[:, :1], torch.zeros_like(LABELS), 1.0)
    with pytest.raises(ValueError, match='kl must be one of'):
        grouped_kl(z_s, z_t, ranked_groups(z_t, 2), 1.0, kl='backward')
    for k, groups in ((4, 2), (0, 2), (1, 3), (4, 3)):
        with pytest.raises(ValueError, match=f'k must be from {groups - 1} to 3'):
            ranked_groups(z_t, k, groups)
    with pytest.raises(ValueError, match='groups must be 2 or 3'):
        ranked_groups(z_t, 2, groups=4)
