import math

import pytest
import torch

from mmrkd.models.losses import feature_mse, median_distance, squared_mmd

F = torch.tensor([[1, 0, 2], [0.5, 1, -1]], dtype=torch.float64)
G = torch.tensor([[0.8, 0.1, 0.5], [0.6, 0.3, 0.9]], dtype=torch.float64)


def test_hand_numbers():
    assert squared_mmd(G * F, (1 - G) * F, (0.5, 1.0, 2.0)).item() == pytest.approx(0.340001, abs=1e-6)
    assert feature_mse([0.9 * F], [G * F]).item() == pytest.approx(0.172083, abs=1e-6)


def test_by_single_numbers():
    a, b = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).tolist()

    def kernel(x, y):
        squared = sum((p - q) ** 2 for p, q in zip(x, y))
        return sum(math.exp(-squared / (2 * s * s)) for s in (0.7, 3.0)) / 2

    def mean(xs, ys):
        return sum(kernel(x, y) for x in xs for y in ys) / 25

    expected = mean(a, a) + mean(b, b) - 2 * mean(a, b)
    assert squared_mmd(torch.tensor(a), torch.tensor(b), (0.7, 3.0)).item() == pytest.approx(expected, abs=1e-6)


def test_bounds_and_gradients():
    assert squared_mmd(F, F).item() == pytest.approx(0, abs=1e-12)
    far = torch.full((2, 3), 1e3, dtype=torch.float64)
    same = torch.zeros(2, 3, dtype=torch.float64)
    assert squared_mmd(same, far).item() == pytest.approx(2)
    a, b = F.clone().requires_grad_(), (F + 0.5).requires_grad_()
    squared_mmd(a, b).backward()
    assert a.grad.abs().sum() > 0 and b.grad.abs().sum() > 0


def test_the_unit_is_the_median_distance():
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]], requires_grad=True)
    assert (
        median_distance(points).item() == pytest.approx(math.hypot(3, 3)) and not median_distance(points).requires_grad
    )
    assert median_distance(points[:1]).item() == 1 and median_distance(torch.zeros(3, 2)).item() == 1
