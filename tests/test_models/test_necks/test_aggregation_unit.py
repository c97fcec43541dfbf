"""The unit that scores branches: compared with the formula, on batches of one, with either norm."""

import pytest
import torch
import torch.nn.functional as F

from mmrkd.models.necks import AggregationUnit


@pytest.mark.parametrize('norm', ['BN', 'GN'])
def test_formula(norm):
    unit = AggregationUnit(6, num_branches=3, num_maps=5, squeeze=4, norm=norm).train()
    x = torch.randn(2, 6, 8, 9)
    total = 0
    for (conv, layer, _), padding in zip(unit.convs, (1, 2, 3)):
        own = F.conv2d(x, conv.weight, conv.bias, padding=padding)
        if norm == 'BN':
            own = F.batch_norm(own, None, None, layer.weight, layer.bias, training=True)
        else:
            own = F.group_norm(own, 2, layer.weight, layer.bias)
        total = total + own.relu()
    pooled = total.flatten(2).mean(2)
    expected = F.linear(F.linear(pooled, unit.squeeze.weight, unit.squeeze.bias), unit.score.weight, unit.score.bias)
    found = unit(x)
    assert found.shape == (2, 3, 5)
    assert torch.allclose(found.flatten(1), expected, atol=1e-5)
    assert [conv[0].kernel_size for conv in unit.convs] == [(3, 3), (5, 5), (7, 7)]


@pytest.mark.parametrize('norm', ['BN', 'GN'])
def test_one_image_and_a_gradient_for_everything(norm):
    unit, x = AggregationUnit(4, 2, 3, kernels=(3,), norm=norm), torch.randn(1, 4, 5, 5, requires_grad=True)
    scores = unit(x)
    assert scores.shape == (1, 2, 3)
    scores.square().sum().backward()
    assert x.grad.abs().sum() > 0 and all(p.grad is not None for p in unit.parameters())


@pytest.mark.parametrize('argument', [dict(kernels=(4,)), dict(kernels=()), dict(squeeze=0), dict(norm='LN')])
def test_sizes_that_do_not_work(argument):
    with pytest.raises(ValueError, match='expected odd kernels|norm must be'):
        AggregationUnit(4, 2, 3, **argument)
