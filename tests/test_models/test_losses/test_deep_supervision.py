import pytest
import torch
from hand_logits import hand_logits
from map_numbers import F_S, F_T

from mmrkd.models.losses import allocated_weights, feature_mse, kl_divergence


def terms():
    """Losses of two exits whose logits and maps are those of the hand numbers, scaled."""
    z_s, z_t = hand_logits()
    by_logits = torch.stack([kl_divergence(share * z_s, z_t, 4.0) for share in (0.2, 0.6)])
    by_maps = torch.stack([feature_mse([share * F_S], [F_T]) for share in (0.5, 0.8)])
    return by_logits, by_maps


@pytest.mark.parametrize(
    'how, expected',
    [('softmax', (0.270574, 0.564939)), ('proportional', (0.273626, 0.571222)), ('uniform', (0.269448, 0.557083))],
)
def test_hand_numbers(how, expected):
    found = terms()
    assert found[0].tolist() == pytest.approx([0.303000, 0.235897], abs=1e-6)
    assert found[1].tolist() == pytest.approx([0.645833, 0.468333], abs=1e-6)
    sums = [(allocated_weights(t, how) * t).sum().item() for t in found]
    assert sums == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize('how', ['softmax', 'proportional', 'uniform'])
def test_weights_are_constants_that_add_up_to_one(how):
    losses = torch.tensor([1.0, 3.0, 0.5], requires_grad=True)
    weights = allocated_weights(losses, how)
    assert not weights.requires_grad and weights.sum().item() == pytest.approx(1)
    assert how == 'uniform' or weights.argmax() == 1, 'the harder exit counts more'
    assert allocated_weights(torch.zeros(3), how).tolist() == pytest.approx([1 / 3] * 3)


def test_an_unknown_allocation_is_refused():
    with pytest.raises(ValueError, match="must be one of .*'softmax'.* found 'hard'"):
        allocated_weights(torch.ones(2), 'hard')
