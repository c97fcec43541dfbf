import pytest
import torch
from hand_logits import hand_logits, sure_logits

from mmrkd.models.losses import kl_divergence, transformed_matching


def test_transformed_matching_by_hand():
    assert transformed_matching(*hand_logits(), 0.2).item() == pytest.approx(0.203584, abs=6e-7, rel=0)


@pytest.mark.parametrize('weighted', [True, False])
def test_it_is_the_definition(weighted):
    z_s, z_t = hand_logits()
    u, q = z_t.softmax(1) ** 0.3, z_s.softmax(1)
    mass = u.sum(1, keepdim=True)
    expected = ((u / mass) * (u / mass / q).log()).sum(1, keepdim=True) * (mass if weighted else 1)
    assert transformed_matching(z_s, z_t, 0.3, weighted).item() == pytest.approx(expected.mean().item(), rel=1e-9)


def test_at_a_power_of_one_it_is_kl():
    z_s, z_t = hand_logits()
    for weighted in (True, False):
        found = transformed_matching(z_s, z_t, 1.0, weighted).item()
        assert found == pytest.approx(kl_divergence(z_s, z_t).item(), rel=1e-9)


def test_it_is_zero_at_the_transformed_teacher_and_not_at_equality():
    _, z_t = hand_logits()
    assert abs(transformed_matching(0.2 * z_t + 5, z_t, 0.2).item()) < 1e-12
    assert transformed_matching(z_t, z_t, 0.2).item() > 0.1


def test_samples_of_an_unsure_teacher_weigh_more():
    z_s, z_t = torch.zeros(2, 4, requires_grad=True), torch.tensor([[9.0, 0, 0, 0], [1.0, 0, 0, 0]])
    weights = []
    for row in (slice(0, 1), slice(1, 2)):
        one, plain = (transformed_matching(z_s[row], z_t[row], 0.2, weighted).item() for weighted in (True, False))
        weights.append(one / plain)
    assert 1 < weights[0] < weights[1] < 4**0.8


def test_gradients_reach_the_student_and_not_the_teacher():
    z_s, z_t = hand_logits()
    transformed_matching(z_s, z_t, 0.2).backward()
    assert z_s.grad.abs().max() > 1e-3 and z_t.grad is None
    assert torch.autograd.gradcheck(lambda z: transformed_matching(z, z_t, 0.2), z_s)


def test_sure_predictions_stay_finite_and_precision():
    z_s, z_t = sure_logits()
    loss = transformed_matching(z_s, z_t, 0.1)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(z_s.grad).all()
    z_s, z_t = hand_logits(torch.float32)
    assert transformed_matching(z_s.half(), z_t.half(), 0.2).dtype == torch.float32


def test_what_does_not_fit_is_refused():
    z_s, z_t = hand_logits()
    with pytest.raises(ValueError, match='gamma must be > 0, found 0'):
        transformed_matching(z_s, z_t, 0)
    with pytest.raises(ValueError, match='logits of one shape'):
        transformed_matching(z_s, z_t[:, :2], 0.2)
