import pytest
import torch

from mmrkd.models.necks import MultiBranchResidualNeck, MultiWidthResidualNeck

IN, OUT = [4, 6, 4, 6], [8, 8, 8, 12]  # levels 0 and 2 share their weights


def maps(widths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, width, 8 // 2**i, 8 // 2**i, generator=generator) for i, width in enumerate(widths)]


def build(**kwargs):
    torch.manual_seed(0)
    neck = MultiWidthResidualNeck(IN, OUT, num_levels=4, num_branches=2, kernel_size=3, **kwargs)
    neck.init_weights()
    return neck


def test_each_pair_of_widths_has_one_neck():
    neck = build()
    assert neck.groups == [[0, 2], [1], [3]]
    assert [(n.projection.in_channels, n.projection.out_channels) for n in neck.necks] == [(4, 8), (6, 8), (6, 12)]


@pytest.mark.parametrize('standardize', [False, True])
def test_values_are_those_of_the_neck_of_each_width(standardize):
    neck, feats = build(standardize=standardize), maps(IN)
    if standardize:
        neck.standardizer.update([3 * f + 1 for f in maps(OUT, seed=5)])
    initial, increments = neck.steps(feats)
    alone, more = neck.necks[0].steps([feats[0], feats[2]])
    assert torch.equal(initial[0], alone[0]) and torch.equal(initial[2], alone[1])
    assert torch.equal(increments[1][2], more[1][1])
    assert torch.equal(increments[0][3], neck.necks[2].steps([feats[3]])[1][0][0])
    final = [h + a + b for h, a, b in zip(initial, *increments)]
    expected = neck.standardizer.denormalize(final) if standardize else final
    for found, value, width in zip(neck(feats), expected, OUT):
        assert torch.allclose(found, value, atol=1e-6) and found.shape[1] == width


def test_detached_branches_leave_the_way_through_the_projections():
    neck, feats = build(), [f.requires_grad_() for f in maps(IN)]
    _, increments = neck.steps(feats, detach_branches=True)
    assert torch.autograd.grad(increments[0][1].sum(), feats, allow_unused=True) == (None,) * 4
    initial, _ = neck.steps(feats, detach_branches=True)
    sum(h.sum() for h in initial).backward()
    assert all(f.grad.abs().sum() > 0 for f in feats)


def test_freezing_the_projections():
    neck = build()
    neck.requires_grad_(False)
    neck.projection.requires_grad_(True)
    learning = {name for name, p in neck.named_parameters() if p.requires_grad}
    assert learning == {f'necks.{i}.projection.{kind}' for i in range(3) for kind in ('weight', 'bias')}


def test_of_one_width_it_is_the_plain_neck():
    torch.manual_seed(1)
    plain = MultiBranchResidualNeck(4, 8, num_levels=2, num_branches=2, kernel_size=3)
    several = MultiWidthResidualNeck([4, 4], [8, 8], num_levels=2, num_branches=2, kernel_size=3)
    several.necks[0].load_state_dict(plain.state_dict())
    feats = maps([4, 4])
    assert all(torch.equal(a, b) for a, b in zip(several(feats), plain(feats)))


def test_every_level_needs_its_features_and_its_width():
    with pytest.raises(ValueError, match='4 levels, found 3'):
        build().steps(maps(IN)[:3])
    with pytest.raises(ValueError, match='expected 3 widths'):
        MultiWidthResidualNeck([4, 4], [8, 8], num_levels=3)


def test_branches_that_wait():
    neck, feats = build(), maps(IN)
    assert len(neck.steps(feats, num_branches=1)[1]) == 1
    assert neck.steps(feats)[1][1][3].abs().sum() > 0
    neck.silence(1)
    initial, (first, second) = neck.steps(feats)
    assert all(f.abs().sum() > 0 for f in first) and all(f.abs().sum() == 0 for f in second)
    waiting = {id(p) for p in neck.parameters_from(1)}
    expected = {id(p) for p in neck.parameters()} - {id(p) for n in neck.necks for p in n.projection.parameters()}
    expected -= {id(p) for n in neck.necks for p in [*n.branches[:1].parameters(), *n.closes[:1].parameters()]}
    assert waiting == expected
