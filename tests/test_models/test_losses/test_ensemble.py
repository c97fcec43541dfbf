"""Branches that learn from their mixture: the worked numbers of OKDHP."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmrkd.models.losses import class_kl, consistency_ramp, heatmap_kl, heatmap_mse, mixed_maps


def heatmap(*values):
    """One image, one joint, ``(1, 1, 1, hw)``."""
    return torch.tensor(values).reshape(1, 1, 1, -1)


def test_divergence_of_where_a_joint_is():
    peaked, flat = heatmap(0.0, math.log(3)), heatmap(0.0, 0.0)
    assert heatmap_kl(peaked, flat).item() == pytest.approx(0.071921, abs=1e-6)
    assert heatmap_kl(flat, flat).item() == 0
    for invisible in (torch.zeros(1, 1), torch.zeros(1, 1, 1)):
        assert heatmap_kl(peaked, flat, invisible).item() == 0
    two = torch.cat([peaked, peaked], dim=1), torch.cat([flat, flat], dim=1)
    assert heatmap_kl(*two).item() == pytest.approx(2 * 0.071921, abs=1e-6), 'a sum over joints'
    assert heatmap_kl(*two, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(0.071921, abs=1e-6)
    images = [torch.cat([part, part]) for part in (peaked, flat)]
    assert heatmap_kl(*images).item() == pytest.approx(0.071921, abs=1e-6), 'a mean over images'


def test_squared_error_of_visible_joints():
    maps, target = torch.tensor([[[[1.0, 3.0]], [[5.0, 5.0]]]]), torch.zeros(1, 2, 1, 2)
    assert heatmap_mse(maps, target).item() == pytest.approx((1 + 9 + 25 + 25) / 4 / 2)
    assert heatmap_mse(maps, target, torch.tensor([[1.0, 0.0]])).item() == pytest.approx((1 + 9) / 4 / 2)
    assert heatmap_mse(maps, target, torch.tensor([[0.5, 0.0]])).item() == pytest.approx((1 + 9) / 4 / 8)


def test_the_mixture():
    scores = torch.tensor([0.0, math.log(2), 0.0]).reshape(1, 3, 1)
    assert scores.softmax(1).flatten().tolist() == pytest.approx([0.25, 0.5, 0.25])
    maps = torch.tensor([0.2, 0.4, 0.8]).reshape(1, 3, 1, 1, 1)
    assert mixed_maps(scores, maps).item() == pytest.approx(0.45)


def test_each_channel_has_shares_of_its_own():
    scores, maps = torch.randn(2, 3, 5), torch.randn(2, 3, 5, 4, 6)
    found = mixed_maps(scores, maps)
    shares = scores.exp() / scores.exp().sum(1, keepdim=True)
    assert torch.allclose(found, torch.einsum('nbk,nbkhw->nkhw', shares, maps), atol=1e-6)
    with pytest.raises(ValueError, match=r'expected scores \(N, B, K\).*found \(2, 3, 4\)'):
        mixed_maps(scores[..., :4], maps)


@pytest.mark.parametrize('epoch, factor', [(0, 0.006738), (15, 0.060055), (30, 0.286505), (60, 1), (150, 1)])
def test_the_ramp(epoch, factor):
    assert consistency_ramp(epoch, 60) == pytest.approx(factor, abs=1e-6)
    assert consistency_ramp(epoch, 0) == 1


def test_divergence_of_classes():
    own, other = torch.zeros(2, 2, 3, 3), torch.stack([torch.full((2, 3, 3), 3.0).log(), torch.zeros(2, 3, 3)], dim=1)
    assert class_kl(own, other).item() == pytest.approx(0.130812, abs=1e-6)
    own, other = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    rows = [z.permute(0, 2, 3, 1).reshape(-1, 3).log_softmax(1) for z in (own, other)]
    expected = F.kl_div(*rows, log_target=True, reduction='batchmean')
    assert class_kl(own, other).item() == pytest.approx(expected.item(), rel=1e-5)


def test_divergence_of_classes_that_are_scored_one_by_one():
    own, other = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    p, q = other.sigmoid(), own.sigmoid()
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum() / (2 * 16)
    assert class_kl(own, other, sigmoid=True).item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize('divergence', [heatmap_kl, heatmap_mse, class_kl])
def test_both_sides_are_pulled(divergence):
    own, other = (torch.randn(1, 2, 3, 3, requires_grad=True) for _ in range(2))
    divergence(own, other).backward()
    assert own.grad.abs().sum() > 0 and other.grad.abs().sum() > 0
