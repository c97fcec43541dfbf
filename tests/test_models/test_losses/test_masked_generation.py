import pytest
import torch
from map_numbers import F_S, F_T, agrees_in_double, gradients

from mmrkd.models.losses import generation_error


def test_sum_of_squares_of_an_image():
    expected = ((F_S - F_T) ** 2).flatten().tolist()
    assert generation_error(F_S, F_T).item() == pytest.approx(sum(expected) / 2) and sum(expected) > 1
    assert generation_error(F_T, F_T) == 0
    assert agrees_in_double(generation_error, F_S, F_T)


def test_gradient_on_the_student_alone():
    own, others = gradients(generation_error, F_S, F_T)
    torch.testing.assert_close(own, F_S - F_T)
    assert others is None


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match='one shape expected'):
        generation_error(F_S, F_T[:1])
