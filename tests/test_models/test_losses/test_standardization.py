import pytest
import torch
from hand_logits import LABELS, hand_logits

from mmrkd.models.losses import decoupled_kl, kl_divergence, standardize_logits


def test_kl_of_standardised_logits_by_hand():
    z_s, z_t = map(standardize_logits, hand_logits())
    assert kl_divergence(z_s, z_t, 2.0).item() == pytest.approx(0.392082, abs=6e-7, rel=0)


def test_mean_and_unbiased_spread_of_each_sample():
    # (3, 1, 1, 3): mean 2, squares sum to 4, over K - 1 = 3: std = 2 / sqrt(3).
    found = standardize_logits(torch.tensor([[3.0, 1.0, 1.0, 3.0], [10.0, 20.0, 30.0, 40.0]]))
    assert found[0].tolist() == pytest.approx([0.75**0.5 * sign for sign in (1, -1, -1, 1)], abs=1e-6)
    assert found.mean(1).abs().max() < 1e-6 and found.std(1).tolist() == pytest.approx([1, 1], abs=1e-6)


def test_what_follows_is_blind_to_scale_and_shift_of_the_student():
    z_s, z_t = hand_logits()
    values = [
        decoupled_kl(standardize_logits(z), standardize_logits(z_t), LABELS, 2.0)[1].item() for z in (z_s, 7 * z_s - 3)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-6)
    assert decoupled_kl(7 * z_s - 3, z_t, LABELS, 2.0)[1].item() > 2 * values[0]  # without it, they do matter


def test_equal_logits_have_a_finite_gradient():
    z = torch.zeros(2, 4, requires_grad=True)
    kl_divergence(standardize_logits(z), torch.randn(2, 4), 2.0).backward()
    assert not standardize_logits(z).any() and torch.isfinite(z.grad).all()


def test_precision_and_refusal():
    z = hand_logits(torch.float32)[0]
    assert standardize_logits(z.half()).dtype == torch.float32 and standardize_logits(z.double()).dtype == torch.float64
    assert torch.autograd.gradcheck(standardize_logits, hand_logits()[0])
    with pytest.raises(ValueError, match='at least two classes'):
        standardize_logits(z[:, :1])
