import pytest
import torch
from reference import affine, mbrnet, normalised, partial_sums, stir
from torch import nn

from mmrkd.models.necks import MultiBranchResidualNeck
from mmrkd.registry import MODELS

C_S, C_T = 16, 24
SIZES = (6, 3)


def build(in_channels=C_S, out_channels=C_T, **kwargs):
    return stir(MultiBranchResidualNeck(in_channels, out_channels, **kwargs).double())


def features(kernel_size=None, num_levels=1, channels=C_S, batch=5):
    generator = torch.Generator().manual_seed(6)
    shapes = [(batch, channels) if kernel_size is None else (batch, channels, s, s) for s in SIZES[:num_levels]]
    return [torch.randn(shape, dtype=torch.double, generator=generator) for shape in shapes]


def assert_like_reference(neck, feats, **how):
    for training in (False, True):  # in training the running statistics of BN move, so evaluation comes first
        neck.train(training)
        expected_h0, expected_increments = mbrnet(feats, neck.state_dict(), training=training, **how)
        initial, increments = neck.steps(feats)
        assert len(increments) == len(expected_increments)
        for found, expected in zip((initial, *increments), (expected_h0, *expected_increments)):
            for a, b in zip(found, expected):
                assert a.abs().max() > 0.1
                torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('num_branches', [1, 2, 3, 4])
@pytest.mark.parametrize('out_channels', [C_S, C_T])
@pytest.mark.parametrize('kernel_size', [None, 1, 3])
def test_steps_are_the_formula(num_branches, out_channels, kernel_size):
    levels = 1 if kernel_size is None else 2
    neck = build(out_channels=out_channels, num_branches=num_branches, kernel_size=kernel_size, num_levels=levels)
    norm = dict(norm='BN') if kernel_size is None else dict(norm='GN', groups=2)
    assert_like_reference(
        neck, features(kernel_size, levels), num_branches=num_branches, depths=[2] * num_branches, **norm
    )


@pytest.mark.parametrize('wiring', ['parallel', 'accumulate', 'cascade', 'mix'])
@pytest.mark.parametrize('kernel_size', [None, 3])
@pytest.mark.parametrize('num_branches', [1, 3])
def test_wirings(wiring, kernel_size, num_branches):
    neck = build(num_branches=num_branches, kernel_size=kernel_size, wiring=wiring, norm='BN')
    how = dict(num_branches=num_branches, depths=[2] * num_branches, wiring=wiring, norm='BN')
    assert_like_reference(neck, features(kernel_size), **how)


@pytest.mark.parametrize('kernel_size', [None, 1, 3])
def test_a_bottleneck_is_three_layers_in_the_place_of_one(kernel_size):
    neck = build(num_branches=2, num_blocks=1, kernel_size=kernel_size, norm='BN', bottleneck=4).eval()
    feats, weights = features(kernel_size), neck.state_dict()
    increments, names = neck.steps(feats)[1], [0, 2, 4]
    for branch, (found,) in enumerate(increments):
        x = feats[0]
        for index in names if kernel_size == 3 else names[:2]:
            x = affine(x, weights, f'branches.{branch}.0.layer.{index}')
            last = index == (4 if kernel_size == 3 else 2)
            x = x if last else x.clamp(min=0)
        x = normalised(x, weights, f'branches.{branch}.0.norms.0', 'BN', 1, False)
        expected = affine(x, weights, f'closes.{branch}')
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_weights_inside_of_a_bottleneck():
    count = sum(
        p.numel() for p in build(kernel_size=3, num_branches=1, num_blocks=1, bottleneck=4).branches.parameters()
    )
    inner = C_S // 4
    expected = (C_S * inner + inner) + (9 * inner**2 + inner) + (inner * C_S + C_S) + 2 * C_S
    assert count == expected
    neck = MultiBranchResidualNeck(C_S, C_T, kernel_size=3, bottleneck=4)
    before = {name: value.clone() for name, value in neck.state_dict().items()}
    neck.init_weights()
    moved = {name for name, value in neck.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {
        *(f'branches.{i}.{b}.layer.4.{part}' for i in range(4) for b in range(2) for part in ('weight', 'bias')),
        *(f'closes.{i}.{part}' for i in range(4) for part in ('weight', 'bias')),
    }
    last = torch.cat([b.last_layer.weight.flatten() for blocks in neck.branches for b in blocks])
    assert last.std().item() == pytest.approx(0.01, rel=0.2)


def test_a_kernel_for_each_block():
    neck = build(num_branches=2, kernel_size=(3, 1), norm='BN', num_levels=2)
    assert [block.layer.kernel_size for block in neck.branches[1]] == [(3, 3), (1, 1)]
    assert_like_reference(neck, features(3, 2), num_branches=2, depths=[2, 2], norm='BN')


def test_mix_starts_as_parallel():
    mixed, parallel = (MultiBranchResidualNeck(C_S, C_T, num_branches=3, wiring=w) for w in ('mix', 'parallel'))
    parallel.load_state_dict({k: v for k, v in mixed.state_dict().items() if k not in ('alpha', 'beta')})
    feats = [f.float() for f in features()]
    assert torch.equal(mixed(feats)[0], parallel(feats)[0])


@pytest.mark.parametrize('act', ['relu', 'mish', 'prelu', 'gelu', 'leaky_relu'])
def test_activations(act):
    neck = build(num_branches=2, act=act)
    assert_like_reference(neck, features(), num_branches=2, depths=[2, 2], act=act)


@pytest.mark.parametrize('norm', ['BN', 'LN', 'GN'])
@pytest.mark.parametrize('kernel_size', [None, 3])
def test_norms(norm, kernel_size):
    neck = build(num_branches=2, norm=norm, kernel_size=kernel_size)
    assert_like_reference(neck, features(kernel_size), num_branches=2, depths=[2, 2], norm=norm, groups=2)


@pytest.mark.parametrize('channels, groups', [(4, 1), (8, 1), (12, 1), (16, 2), (20, 2), (24, 1), (48, 2), (256, 32)])
def test_group_norm_keeps_eight_channels_or_more_in_a_group(channels, groups):
    neck = MultiBranchResidualNeck(channels, channels, num_branches=1, kernel_size=3)
    assert {m.num_groups for m in neck.modules() if isinstance(m, nn.GroupNorm)} == {groups}


@pytest.mark.parametrize('kernel_size', [None, 3])
def test_synchronised_batch_norm_is_built(kernel_size):
    neck = MultiBranchResidualNeck(C_S, C_T, num_branches=2, kernel_size=kernel_size, norm='SyncBN')
    norms = [m for m in neck.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert [(n.num_features, n.momentum) for n in norms] == [(C_S, 0.01)] * 4


@pytest.mark.parametrize('kernel_size, expected', [(None, nn.BatchNorm1d), (1, nn.GroupNorm), (3, nn.GroupNorm)])
def test_default_norm_of_vectors_and_maps(kernel_size, expected):
    neck = MultiBranchResidualNeck(C_S, C_T, kernel_size=kernel_size)
    assert {type(block.norms[0]) for blocks in neck.branches for block in blocks} == {expected}


def test_depth_of_each_branch():
    neck = build(num_branches=3, num_blocks=[1, 3, 2])
    assert_like_reference(neck, features(), num_branches=3, depths=[1, 3, 2])


@pytest.mark.parametrize('wiring', ['parallel', 'accumulate'])
def test_shared_blocks_are_the_same_modules(wiring):
    neck = build(num_branches=3, num_blocks=3, shared_blocks=2, wiring=wiring)
    assert_like_reference(neck, features(), num_branches=3, depths=[3] * 3, wiring=wiring)
    first = neck.branches[0]
    for blocks in list(neck.branches)[1:]:
        assert blocks[0] is first[0] and blocks[1] is first[1]
        assert blocks[2] is not first[2]
    block = C_S * C_S + C_S + 2 * C_S  # weight, bias, affine of the norm
    close = C_S * C_T + C_T
    assert sum(p.numel() for p in neck.parameters()) == (2 + 3) * block + 3 * close + close  # the last one is P


@pytest.mark.parametrize('shared_close, count', [(True, 1), (False, 3)])
def test_closing_layers(shared_close, count):
    neck = build(num_branches=3, shared_close=shared_close)
    assert len(neck.closes) == count
    assert_like_reference(neck, features(), num_branches=3, depths=[2] * 3, shared_close=shared_close)


def test_equal_widths_need_no_closing_layer_but_keep_the_projection():
    neck = MultiBranchResidualNeck(C_S, C_S, shared_close=True)
    assert not any('close' in name for name, _ in neck.named_parameters())
    assert neck.projection.weight.shape == (C_S, C_S) and neck.projection.bias.shape == (C_S,)


@pytest.mark.parametrize('norm', ['BN', 'GN'])
def test_norm_layers_of_each_level(norm):
    neck = build(num_branches=2, kernel_size=3, num_levels=2, norm=norm, norm_per_level=True)
    how = dict(num_branches=2, depths=[2, 2], norm=norm, groups=2, norm_per_level=True)
    assert_like_reference(neck, features(3, 2), **how)


def test_forward_is_the_last_partial_sum():
    neck = build(num_branches=3, kernel_size=3, num_levels=2)
    feats = features(3, 2)
    initial, increments = mbrnet(feats, neck.state_dict(), 3, [2] * 3, norm='GN', groups=2)
    for found, expected in zip(neck(feats), partial_sums(initial, increments)[-1]):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_forward_brings_standardised_estimates_back_to_the_scale_of_the_teacher():
    neck = build(num_branches=1, kernel_size=1, num_levels=2, standardize=True)
    teacher = [3 * f + 7 for f in features(1, 2, C_T)]
    for level, feat in enumerate(teacher):
        getattr(neck.standardizer, f'mean{level}').copy_(feat.mean((0, 2, 3)))
        getattr(neck.standardizer, f'variance{level}').copy_(feat.var((0, 2, 3), unbiased=False))
    feats = features(1, 2)
    initial, increments = mbrnet(feats, neck.state_dict(), 1, [2], norm='GN', groups=2)
    for found, feat, estimate in zip(neck(feats), teacher, partial_sums(initial, increments)[-1]):
        std = feat.std((0, 2, 3), unbiased=False, keepdim=True)
        expected = estimate * std + feat.mean((0, 2, 3), keepdim=True)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_initial_weights():
    torch.manual_seed(1)
    neck = MultiBranchResidualNeck(64, 96, num_branches=3, act='prelu')
    neck.init_weights()
    weights = [b.layer.weight for blocks in neck.branches for b in blocks] + [c.weight for c in neck.closes]
    for weight in weights:
        assert weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert abs(weight.mean().item()) < 0.001
    for name, parameter in neck.named_parameters():
        if name.endswith('bias') and 'projection' not in name:
            assert torch.equal(parameter, torch.zeros_like(parameter)), name
        if '.norms.' in name and name.endswith('weight'):
            assert torch.equal(parameter, torch.ones_like(parameter)), name
    assert {m.momentum for m in neck.modules() if isinstance(m, nn.BatchNorm1d)} == {0.01}
    # P keeps torch's own: uniform within 1 / sqrt(64).
    assert 0.1 < neck.projection.weight.abs().max() <= 0.125
    assert neck.projection.bias.abs().max() > 0


def test_running_statistics_move_by_a_hundredth():
    neck = MultiBranchResidualNeck(C_S, C_T, num_branches=1).double()
    feats = features()
    out = torch.einsum('nc,oc->no', feats[0], neck.branches[0][0].layer.weight) + neck.branches[0][0].layer.bias
    neck.train()(feats)
    norm = neck.branches[0][0].norms[0]
    torch.testing.assert_close(norm.running_mean, 0.01 * out.mean(0))
    torch.testing.assert_close(norm.running_var, 0.99 + 0.01 * out.var(0, unbiased=True))


def gradient(neck, feats, parts, **kwargs):
    """Gradient of a weighted sum of some outputs with respect to the input. 0: h_0, i: D_i."""
    feats = [f.clone().requires_grad_() for f in feats]
    initial, increments = neck.steps(feats, **kwargs)
    outputs = [initial, *increments]
    generator = torch.Generator().manual_seed(9)
    total = sum((o * torch.randn(o.shape, dtype=o.dtype, generator=generator)).sum() for i in parts for o in outputs[i])
    if not total.requires_grad:
        return None
    return torch.autograd.grad(total, feats, allow_unused=True)[0]


def test_gradient_reaches_the_input_through_projection_and_branches():
    neck, feats = build(num_branches=2), features()
    through = [gradient(neck, feats, [i]) for i in range(3)]
    assert all(g.abs().sum() > 0 for g in through)
    # P is linear, so that its part is the transposed weight.
    generator = torch.Generator().manual_seed(9)
    factors = torch.randn(5, C_T, dtype=torch.double, generator=generator)
    torch.testing.assert_close(through[0], factors @ neck.projection.weight)


def test_detached_branches_leave_the_way_through_the_projection():
    neck, feats = build(num_branches=2), features()
    assert gradient(neck, feats, [1, 2], detach_branches=True) is None
    both = gradient(neck, feats, [0, 1, 2], detach_branches=True)
    assert torch.equal(both, gradient(neck, feats, [0]))


def test_detached_branches_still_learn():
    neck = build(num_branches=2)
    _, increments = neck.steps(features(), detach_branches=True)
    sum(d[0].square().sum() for d in increments).backward()
    for name, parameter in neck.named_parameters():
        assert (parameter.grad is None) == name.startswith('projection'), name


def test_values_do_not_depend_on_detaching():
    neck, feats = build(num_branches=2), features()
    for free, detached in zip(neck.steps(feats)[1], neck.steps(feats, detach_branches=True)[1]):
        assert torch.equal(free[0], detached[0])


def test_every_parameter_of_a_single_mixed_branch_is_used():
    neck = build(num_branches=1, wiring='mix')
    neck(features())[0].square().sum().backward()
    assert [name for name, p in neck.named_parameters() if p.grad is None] == []


def test_every_level_needs_its_features():
    neck = MultiBranchResidualNeck(C_S, C_T, num_levels=2, kernel_size=3)
    with pytest.raises(ValueError, match='expected features of 2 levels, found 1'):
        neck.steps([torch.zeros(1, C_S, 4, 4)])


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(num_branches=0), r'expected N >= 1 branches of >= 1 blocks each, found N = 0'),
        (dict(num_blocks=0), r'expected N >= 1 branches of >= 1 blocks each, found N = 4 with blocks \[0, 0, 0, 0\]'),
        (dict(num_branches=3, num_blocks=[1, 2]), r'found N = 3 with blocks \[1, 2\]'),
        (dict(num_branches=2, num_blocks=[2, 0]), r'found N = 2 with blocks \[2, 0\]'),
        (dict(kernel_size=(3,)), r'kernel_size: expected a number for each of 2 blocks, found \[3\]'),
        (dict(bottleneck=0), 'bottleneck must be at least 1, found 0'),
        (dict(kernel_size=2), 'kernel_size must be None .* or an odd number .*, found 2'),
        (dict(shared_blocks=2), r'shared_blocks must be in \[0, 1\].*found 2'),
        (dict(shared_blocks=-1), r'shared_blocks must be in \[0, 1\].*found -1'),
        (dict(num_blocks=[3, 1, 3, 3], shared_blocks=1), r'shared_blocks must be in \[0, 0\]'),
        (dict(wiring='serial'), r"wiring must be one of \('parallel', .*\), found 'serial'"),
        (dict(act='swish'), r"act must be one of \('relu', .*\), found 'swish'"),
        (dict(norm='IN'), r"norm must be one of \('BN', .*\), found 'IN'"),
        (dict(in_channels=[16, 32]), r'in_channels: .*every level needs the same width, but found \[16, 32\]'),
        (dict(out_channels=(24, 48)), r'out_channels: .*every level needs the same width, but found \[24, 48\]'),
    ],
)
def test_arguments_out_of_range(kwargs, message):
    with pytest.raises(ValueError, match=message):
        MultiBranchResidualNeck(**{'in_channels': C_S, 'out_channels': C_T, **kwargs})


def test_equal_widths_may_be_given_for_each_level():
    neck = MultiBranchResidualNeck([C_S, C_S], (C_T, C_T), num_levels=2, kernel_size=1)
    assert neck.projection.weight.shape == (C_T, C_S, 1, 1)


def test_it_is_registered():
    neck = MODELS.build(dict(type='MultiBranchResidualNeck', in_channels=C_S, out_channels=C_T, num_branches=2))
    assert isinstance(neck, MultiBranchResidualNeck) and neck.num_branches == 2


class TestABatchOfOne:
    """mmengine's loader keeps the last batch of an epoch, however small it is."""

    @pytest.mark.parametrize('kernel_size, shape', [(None, (1, C_S)), (1, (1, C_S, 1, 1))])
    def test_it_is_normalised_by_the_running_statistics_and_leaves_them(self, kernel_size, shape):
        neck = build(num_branches=2, kernel_size=kernel_size, norm='BN')  # stirred: no statistic is 0 or 1
        norm = neck.branches[0][0].norms[0].train()
        before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
        feat = torch.randn(shape, dtype=torch.double)
        x = neck.branches[0][0].layer(feat).reshape(1, C_S)
        scaled = (x - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        found = neck.branches[0][0](feat)
        torch.testing.assert_close(found.reshape(1, C_S), scaled.clamp(min=0))
        assert all(torch.equal(buffer, before[name]) for name, buffer in norm.named_buffers())

    def test_it_is_what_evaluation_gives_and_trains_every_parameter(self):
        neck = build(num_branches=3)
        feats = features(batch=1)
        (expected,) = neck.eval()(feats)
        (found,) = neck.train()(feats)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        found.square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in neck.parameters())
        assert any(p.grad.abs().sum() > 0 for p in neck.branches[0][0].norms.parameters())

    def test_two_images_are_normalised_by_their_own_statistics(self):
        neck = build(num_branches=1).train()
        norm, feats = neck.branches[0][0].norms[0], features(batch=2)
        before = norm.running_mean.clone()
        x = neck.branches[0][0].layer(feats[0])
        expected = (x - x.mean(0)) / (x.var(0, unbiased=False) + norm.eps).sqrt() * norm.weight + norm.bias
        torch.testing.assert_close(neck.branches[0][0](feats[0]), expected.clamp(min=0))
        assert not torch.equal(norm.running_mean, before)
