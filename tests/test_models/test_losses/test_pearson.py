import pytest
import torch
from map_numbers import F_S, F_T, agrees_in_double, gradients

from mmrkd.models.losses import pearson_distance


def test_number_worked_out_by_hand():
    assert pearson_distance(F_S, F_T).item() == pytest.approx(0.155943, abs=1e-6)
    assert agrees_in_double(pearson_distance, F_S, F_T)


def test_scale_and_offset_do_not_matter():
    assert pearson_distance(3 * F_S + 7, F_T).item() == pytest.approx(0.155943, abs=1e-5)
    assert pearson_distance(0.5 * F_T - 2, F_T).item() == pytest.approx(0, abs=1e-6)


def test_it_is_one_minus_the_correlation_of_each_channel():
    s, t = (torch.randn(4, 5, 3, 6, dtype=torch.double) for _ in range(2))
    m = 4 * 3 * 6
    values = [torch.stack([f[:, c].reshape(-1) for f in (s, t)]) for c in range(5)]
    expected = sum((m - 1) / m * (1 - torch.corrcoef(v)[0, 1]) for v in values) / 5
    assert pearson_distance(s, t).item() == pytest.approx(expected.item(), abs=1e-5)
    vectors = pearson_distance(s[..., 0, 0], t[..., 0, 0])  # N values in a channel
    expected = (
        sum(3 / 4 * (1 - torch.corrcoef(torch.stack([s[:, c, 0, 0], t[:, c, 0, 0]]))[0, 1]) for c in range(5)) / 5
    )
    assert vectors.item() == pytest.approx(expected.item(), abs=1e-5)


def test_gradient_on_the_student_alone():
    own, others = gradients(pearson_distance, F_S, F_T)
    assert own.abs().sum() > 0.1 and others is None
    assert own.sum(dim=(0, 2, 3)).abs().max() < 1e-6, 'an offset of a channel changes nothing'


def test_one_value_in_a_channel_is_left_out():
    for student in (torch.ones(1, 3, 1, 1), torch.ones(1, 3)):
        own, _ = gradients(pearson_distance, student, 2 * student)
        assert pearson_distance(student, 2 * student) == 0 and torch.equal(own, torch.zeros_like(own))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match='of one shape expected'):
        pearson_distance(F_S, F_T[:1])
