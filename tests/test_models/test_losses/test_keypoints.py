import math

import pytest
import torch

from mmrkd.models.losses import coordinate_kl, heatmap_mse


def test_half_of_the_squared_error_of_visible_joints():
    """By hand: errors 1 and 2 in the first joint, 3 and 0 in the second, which counts half."""
    student = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
    teacher, visible = torch.zeros(1, 2, 1, 2), torch.tensor([[1.0, 0.5]])
    assert heatmap_mse(student, teacher).item() == pytest.approx((1 + 4 + 9) / 4 / 2)
    assert heatmap_mse(student, teacher, visible).item() == pytest.approx((1 + 4 + 9 / 4) / 4 / 2)
    assert heatmap_mse(student, teacher, torch.tensor([[1.0, 0.0]])).item() == pytest.approx((1 + 4) / 4 / 2)
    assert heatmap_mse(student, student).item() == 0


def test_gradients_reach_the_student_alone():
    student, teacher = torch.rand(2, 3, 4, 4, requires_grad=True), torch.rand(2, 3, 4, 4, requires_grad=True)
    visible = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    heatmap_mse(student, teacher.detach(), visible).backward()
    expected = visible[:, :, None, None] * (student - teacher).detach() / student.numel()
    torch.testing.assert_close(student.grad, expected)
    assert teacher.grad is None


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match='of one shape expected'):
        heatmap_mse(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 4, 3))
    with pytest.raises(ValueError, match=r'visible: \(1, 2\) expected, .* found \(2, 2\)'):
        heatmap_mse(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4), torch.zeros(2, 2))
    with pytest.raises(ValueError, match='found 1 and 2 axes'):
        coordinate_kl([torch.zeros(1, 1, 2)], [torch.zeros(1, 1, 2)] * 2)
    with pytest.raises(ValueError, match='beta 0'):
        coordinate_kl([torch.zeros(1, 1, 2)], [torch.zeros(1, 1, 2)], beta=0)


def test_coordinates_worked_number():
    """The specification's: x bins (0, 0) from (0, ln 3 / 10), y equal, beta 10, one joint."""
    student = torch.zeros(1, 1, 2), torch.tensor([[[1.0, 2.0, 0.5]]])
    teacher = torch.tensor([[[0.0, math.log(3) / 10]]]), student[1]
    assert coordinate_kl(student, teacher, beta=10).item() == pytest.approx(0.130812, abs=1e-6)
    assert coordinate_kl(teacher, teacher, beta=10).item() == pytest.approx(0, abs=1e-7)


def test_axes_are_summed_and_joints_and_images_averaged():
    generator = torch.Generator().manual_seed(0)
    own, other = ([torch.randn(2, 3, bins, generator=generator) for bins in (4, 7)] for _ in range(2))
    expected = 0
    for z_s, z_t in zip(own, other):
        p, q = (5 * z_t).softmax(2), (5 * z_s).softmax(2)
        expected += (p * (p / q).log()).sum(2).mean()
    assert coordinate_kl(own, other, beta=5).item() == pytest.approx(expected.item(), rel=1e-5)
