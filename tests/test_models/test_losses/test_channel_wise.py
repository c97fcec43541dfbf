import pytest
import torch
from map_numbers import F_S, F_T, agrees_in_double, gradients

from mmrkd.models.losses import channel_divergence


def test_numbers_worked_out_by_hand():
    assert channel_divergence(F_S, F_T, 4).item() == pytest.approx(0.156600, abs=1e-6)
    assert 3 * channel_divergence(F_S, F_T, 4).item() == pytest.approx(0.469800, abs=2e-6)
    assert 10 * channel_divergence(F_S, F_T, 1).item() == pytest.approx(1.444484, abs=5e-6)
    assert agrees_in_double(lambda s, t: channel_divergence(s, t, 4.0), F_S, F_T)


def test_it_is_a_divergence_of_where_a_channel_is_high():
    assert channel_divergence(F_T, F_T, 1).item() == pytest.approx(0, abs=1e-7)
    offset = torch.tensor([5.0, -3.0])[None, :, None, None]
    assert channel_divergence(F_T + offset, F_T, 1).item() == pytest.approx(0, abs=1e-6)
    far = channel_divergence(100 * F_S, -100 * F_T, 1)  # a probability underflows
    assert torch.isfinite(far) and far > 100


def test_gradient_on_the_student_alone():
    own, others = gradients(lambda s, t: channel_divergence(s, t, 1), F_S, F_T)
    assert own.abs().sum() > 0.1 and others is None


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match='tau must be > 0, found 0'):
        channel_divergence(F_S, F_T, 0)
    with pytest.raises(ValueError, match=r'one shape expected.*\(2, 2, 1, 3\).*\(2, 1, 1, 3\)'):
        channel_divergence(F_S, F_T[:, :1], 1)
    with pytest.raises(ValueError, match='one shape expected'):
        channel_divergence(F_S[..., 0, 0], F_T[..., 0, 0], 1)
