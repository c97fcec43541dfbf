import pytest
import torch
from mmengine.registry import init_default_scope

from mmrkd.models import ResidualAssistantNeck


def maps(channels=16, requires_grad=False):
    return [torch.randn(2, channels, size, size, requires_grad=requires_grad) for size in (8, 4)]


def test_it_adds_what_the_shared_stack_gives():
    neck, feats = ResidualAssistantNeck(16, num_levels=2).eval(), maps()
    found = neck(feats)
    assert all(torch.allclose(f, x + neck.assistant(x)) for f, x in zip(found, feats))
    assert min((f - x).min() for f, x in zip(found, feats)) < 0 < max((f - x).max() for f, x in zip(found, feats))


def test_vectors_by_hand():
    neck = ResidualAssistantNeck(4, mid_channels=2, vectors=True)
    first, hidden, last = (layer for layer in neck.assistant if isinstance(layer, torch.nn.Linear))
    x = torch.randn(3, 4)
    y = (x @ first.weight.T + first.bias).clamp(min=0)
    y = (y @ hidden.weight.T + hidden.bias).clamp(min=0)
    assert torch.allclose(neck([x])[0], x + y @ last.weight.T + last.bias, atol=1e-6)


@pytest.mark.parametrize('detach', [True, False])
def test_the_student_gets_the_gradient_of_the_sum_alone(detach):
    neck, feats = ResidualAssistantNeck(16, num_levels=2, detach=detach), maps(requires_grad=True)
    sum(f.sum() for f in neck(feats)).backward()
    assert all(torch.equal(x.grad, torch.ones_like(x)) for x in feats) is detach
    assert all(p.grad is not None for p in neck.parameters())


def test_around_another_neck():
    init_default_scope('mmdet')
    fpn = dict(type='FPN', in_channels=[8, 16], out_channels=16, num_outs=2)
    neck = ResidualAssistantNeck(16, neck=fpn, num_levels=2).eval()
    feats = [torch.randn(1, 8, 8, 8), torch.randn(1, 16, 4, 4)]
    inner = neck.neck(feats)
    assert all(torch.allclose(f, x + neck.assistant(x)) for f, x in zip(neck(feats), inner))
    with neck.unassisted():
        assert all(torch.equal(f, x) for f, x in zip(neck(feats), inner))
    assert all(not torch.equal(f, x) for f, x in zip(neck(feats), inner))


def test_without_convolutions_it_is_the_student_and_takes_its_weights():
    neck, alone = ResidualAssistantNeck(16, num_levels=2), ResidualAssistantNeck(16, num_levels=2, num_convs=0)
    assert set(alone.state_dict()) <= set(neck.state_dict()) and alone.assistant_modules() == []
    feats = maps()
    assert all(torch.equal(f, x) for f, x in zip(alone(feats), feats))
    assert (alone.cost([(8, 8)]).params, alone.cost([(8, 8)]).flops) == (0, 0)


def test_it_reports_what_it_costs():
    neck = ResidualAssistantNeck(16, num_levels=2, num_convs=2, mid_channels=8)
    weights = 16 * 8 + 2 * 9 * 8 * 8 + 8 * 16
    cost = neck.cost([(8, 8), (4, 4)])
    assert cost.params == weights + 3 * 8 + 16 == sum(p.numel() for p in neck.parameters())
    assert cost.flops == weights * (64 + 16)
    vectors = ResidualAssistantNeck(16, mid_channels=8, vectors=True).cost([(1, 1)])
    assert vectors.flops == 16 * 8 + 8 * 8 + 8 * 16


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match='num_convs must be at least 0'):
        ResidualAssistantNeck(16, num_convs=-1)
    with pytest.raises(ValueError, match=r'expected features of 1 levels \(num_levels\), found 2'):
        ResidualAssistantNeck(16)(maps())
