import math

import pytest
import torch
from hand_logits import LABELS, hand_logits

from mmrkd.models.losses import cross_view_kl, kept_kl, kl_divergence, sure_of


def hand_views():
    """Both models on both views, as the specification has them."""
    z_s, z_t = hand_logits()
    change = torch.tensor([[0, 0, 1, 0], [0.5, 0, 0, 0], [1, 0, 0, -1.5]], dtype=torch.float64)
    return z_s, 0.5 * z_s.flip(1), 2 * z_t, z_t + change


def row_kl(z_s, z_t, tau):
    """KL of one sample in plain numbers."""
    p, q = ([math.exp(v / tau) for v in z] for z in (z_t, z_s))
    p, q = ([v / sum(values) for v in values] for values in (p, q))
    return tau**2 * sum(a * math.log(a / b) for a, b in zip(p, q))


def test_confidences_decide_what_is_kept():
    *_, weak, strong = hand_views()
    confidences = [z.detach().softmax(1).amax(1).tolist() for z in (weak, strong)]
    assert confidences[0] == pytest.approx([0.921116, 0.746256, 0.746722], abs=1e-6)
    assert confidences[1] == pytest.approx([0.648867, 0.462227, 0.365102], abs=1e-6)
    assert sure_of(weak, 0.75).tolist() == [1, 0, 0] and sure_of(strong, 0.45).tolist() == [1, 1, 0]


@pytest.mark.parametrize('gate, expected', [('released', (0.565508, 1.197153)), ('target', (0.617256, 0.966420))])
def test_hand_numbers(gate, expected):
    found = cross_view_kl(*hand_views(), 4.0, 0.75, 0.45, gate)
    assert [term.item() for term in found] == pytest.approx(expected, abs=1e-6)


def test_with_its_weights_and_the_labels_of_both_views():
    z_w, z_s, *teacher = hand_views()
    ce = sum(torch.nn.functional.cross_entropy(z, LABELS) for z in (z_w, z_s))
    within, cross = cross_view_kl(z_w, z_s, *teacher, 4.0, 0.75, 0.45)
    assert ce.item() == pytest.approx(2.419633, abs=1e-6)
    assert (ce + 2 * within + 0.5 * cross).item() == pytest.approx(4.149227, abs=1e-6)


@pytest.mark.parametrize('gate', ['released', 'target'])
def test_by_single_numbers(gate):
    """The gates as the release multiplies them in: weak, weak | strong, strong; or by the view of the target."""
    z_w, z_s, t_w, t_s = (z.detach() for z in hand_views())
    m_w, m_s = (1, 0, 0), (1, 1, 0)
    gates = dict(released=(m_w, m_w, m_s, m_s), target=(m_w, m_s, m_w, m_s))[gate]
    terms = [
        sum(gate[n] * row_kl(s[n].tolist(), t[n].tolist(), 2.0) for n in range(3)) / 3
        for gate, (s, t) in zip(gates, ((z_w, t_w), (z_s, t_s), (z_s, t_w), (z_w, t_s)))
    ]
    found = cross_view_kl(z_w, z_s, t_w, t_s, 2.0, 0.75, 0.45, gate)
    assert [term.item() for term in found] == pytest.approx([sum(terms[:2]), sum(terms[2:])], rel=1e-9)


def test_equal_predictions_cost_nothing_and_gradients_reach_the_student_alone():
    z = hand_views()[2].detach()
    assert all(abs(term.item()) < 1e-12 for term in cross_view_kl(z, z, z, z, 4.0, 0.0, 0.0))
    leaves = [v.detach().requires_grad_() for v in hand_views()]
    sum(cross_view_kl(*leaves, 4.0, 0.75, 0.45)).backward()
    assert leaves[0].grad.abs().sum() > 0 and leaves[1].grad.abs().sum() > 0
    assert leaves[2].grad is None and leaves[3].grad is None
    assert not leaves[0].grad[2].any() and not leaves[1].grad[2].any(), 'no view of it is sure'


def test_errors():
    z = hand_views()
    with pytest.raises(ValueError, match=r"gate must be one of \('released', 'target'\), found 'both'"):
        cross_view_kl(*z, gate='both')
    with pytest.raises(ValueError, match='logits of one shape'):
        cross_view_kl(z[0], z[1], z[2], z[3][:, :3])


def test_kept_rows_alone_count():
    z_s, z_t = hand_logits()
    kept = torch.tensor([True, False, True])
    assert kept_kl(z_s, z_t, kept, 4.0).item() == pytest.approx(kl_divergence(z_s[kept], z_t[kept], 4.0).item())
    none = kept_kl(z_s, z_t, torch.zeros(3, dtype=torch.bool), 4.0)
    none.backward()
    assert none.item() == 0 and not z_s.grad.any() and z_t.grad is None
