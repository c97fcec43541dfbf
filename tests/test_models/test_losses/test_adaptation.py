"""What no affine map explains: the worked numbers of MTPD, and least squares by another way."""

import pytest
import torch

from mmrkd.models.losses import AffineSums, adaptation_cost


def channel(*values):
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, -1)


STUDENT, FIRST, SECOND = channel(0, 1, 2, 3), channel(0, 1, 2, 4), channel(0, 1, 4, 9)


@pytest.mark.parametrize(
    'source, target, cost',
    [(STUDENT, FIRST, 0.034286), (FIRST, SECOND, 0.019825), (STUDENT, SECOND, 0.081633), (STUDENT, STUDENT, 0)],
)
def test_one_channel(source, target, cost):
    assert adaptation_cost(source, target) == pytest.approx(cost, abs=1e-6)


def test_an_affine_image_costs_nothing():
    source = torch.randn(3, 5, 6, 7)
    weight, bias = torch.randn(4, 5), torch.randn(4)
    target = torch.einsum('dc,nchw->ndhw', weight, source) + bias[:, None, None]
    assert adaptation_cost(source, target) == pytest.approx(0, abs=1e-7)
    assert adaptation_cost(source, torch.randn(3, 4, 6, 7)) > 0.5
    assert adaptation_cost(source.mean((2, 3)), target.mean((2, 3))) == pytest.approx(0, abs=1e-7)


def test_least_squares():
    source, target = torch.randn(2, 3, 8, 8), torch.randn(2, 4, 8, 8).cumsum(1)
    rows = [f.double().permute(0, 2, 3, 1).reshape(-1, f.shape[1]) for f in (source, target)]
    design = torch.cat([rows[0], torch.ones(len(rows[0]), 1, dtype=torch.float64)], dim=1)
    left = rows[1] - design @ torch.linalg.lstsq(design, rows[1]).solution
    expected = left.square().sum() / (rows[1] - rows[1].mean(0)).square().sum()
    assert adaptation_cost(source, target) == pytest.approx(expected.item(), rel=1e-6)
    sums = AffineSums()
    for image in (slice(0, 1), slice(1, 2)):
        sums.add(source[image], target[image])
    assert sums.cost() == pytest.approx(expected.item(), rel=1e-6), 'one pass, batch by batch'


def test_dead_and_doubled_channels():
    source = torch.randn(2, 3, 8, 8)
    doubled = torch.cat([source, source, torch.zeros(2, 1, 8, 8)], dim=1)
    target = torch.randn(2, 2, 8, 8)
    assert adaptation_cost(doubled, target) == pytest.approx(adaptation_cost(source, target), abs=1e-6)
    assert adaptation_cost(source, torch.full((2, 2, 8, 8), 3.0)) == 0
    assert adaptation_cost(torch.zeros(2, 1, 8, 8), target) == pytest.approx(1)


def test_what_does_not_belong_together():
    with pytest.raises(ValueError, match='features at the same positions expected'):
        adaptation_cost(torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 4))
    with pytest.raises(ValueError, match='no features were added'):
        AffineSums().cost()
