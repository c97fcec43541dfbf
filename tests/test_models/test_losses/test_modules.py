import math

import pytest
import torch

from mmrkd.models.losses import FeatureMSELoss, KLDivergenceLoss, SigmoidKLLoss
from mmrkd.registry import MODELS

DIVERGENCE = 0.75 * math.log(3) - math.log(2)  # of (3/4, 1/4) from (1/2, 1/2), see test_functional.py


@pytest.mark.parametrize('weight', [1.0, 0.25])
def test_feature_mse_loss(weight):
    loss = MODELS.build(dict(type='FeatureMSELoss', loss_weight=weight))
    assert isinstance(loss, FeatureMSELoss)
    # (4 + 0) / 2 = 2
    assert loss([torch.tensor([[2.0, 1.0]])], [torch.tensor([[0.0, 1.0]])]).item() == pytest.approx(2 * weight)


@pytest.mark.parametrize('weight', [1.0, 0.25])
@pytest.mark.parametrize('tau', [1.0, 2.0])
def test_kl_divergence_loss(weight, tau):
    loss = MODELS.build(dict(type='KLDivergenceLoss', loss_weight=weight, tau=tau))
    assert isinstance(loss, KLDivergenceLoss)
    student, teacher = torch.zeros(1, 2), torch.tensor([[tau * math.log(3), 0.0]])
    assert loss(student, teacher).item() == pytest.approx(weight * tau**2 * DIVERGENCE, abs=1e-6)


@pytest.mark.parametrize('weight', [1.0, 0.25])
@pytest.mark.parametrize('tau', [1.0, 2.0])
def test_sigmoid_kl_loss(weight, tau):
    loss = MODELS.build(dict(type='SigmoidKLLoss', loss_weight=weight, tau=tau))
    assert isinstance(loss, SigmoidKLLoss)
    student, teacher = torch.zeros(2, 1), torch.full((2, 1), tau * math.log(3))
    # Two predictions over 3/4 + 3/4 objects.
    assert loss(student, teacher).item() == pytest.approx(weight * tau**2 * DIVERGENCE * 4 / 3, abs=1e-6)


@pytest.mark.parametrize('weight', [1.0, 0.25])
def test_feature_cosine_and_attention_loss(weight):
    cosine = MODELS.build(dict(type='FeatureCosineLoss', loss_weight=weight))
    estimate, target = [torch.tensor([[3.0, 4.0]])], [torch.tensor([[4.0, 3.0]])]
    assert cosine(estimate, target).item() == pytest.approx(weight * (1 - 24 / 25), abs=1e-6)
    attention = MODELS.build(dict(type='FeatureAttentionLoss', loss_weight=weight))
    estimate, target = [torch.tensor([[[[1.0, 0.0]]]])], [torch.tensor([[[[0.0, 2.0]]]])]
    assert attention(estimate, target).item() == pytest.approx(weight * (1 + 1) / 2)


def test_defaults():
    for kind in (KLDivergenceLoss, SigmoidKLLoss):
        assert (kind().tau, kind().loss_weight) == (1.0, 1.0)
    assert FeatureMSELoss().loss_weight == 1.0
