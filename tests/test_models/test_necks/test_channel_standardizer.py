from contextlib import contextmanager

import numpy as np
import pytest
import torch

from mmrkd.models.necks import ChannelStandardizer

CHANNELS = (3, 5)


def batch(seed, maps=True):
    """Two levels with another mean and spread in each channel."""
    rng = np.random.default_rng(seed)
    feats = []
    for level, width in enumerate(CHANNELS):
        shape = (4, width, 6 - level, 7) if maps else (9, width)
        scale = np.linspace(0.5, 3, width).reshape(1, -1, *[1] * (len(shape) - 2))
        feats.append((rng.normal(size=shape) * scale + 2 * scale).astype(np.float32))
    return feats


def tensors(arrays):
    return [torch.from_numpy(a) for a in arrays]


def assert_near(found, expected):
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('maps', [True, False])
@pytest.mark.parametrize('count', [1, 3])
def test_statistics_are_those_of_everything_seen(maps, count):
    batches = [batch(seed, maps) for seed in range(count)]
    standardizer = ChannelStandardizer(CHANNELS)
    for feats in batches:
        standardizer.update(tensors(feats))
    assert standardizer.updates == count
    for level in range(len(CHANNELS)):
        seen = np.concatenate([b[level] for b in batches]).astype(np.float64)
        over = (0, 2, 3) if maps else (0,)
        assert_near(getattr(standardizer, f'mean{level}'), seen.mean(over))
        mean, std = seen.mean(over, keepdims=True), seen.std(over, keepdims=True)
        new = batch(99, maps)
        assert_near(standardizer.normalize(tensors(new))[level], (new[level] - mean) / std)


def test_what_was_seen_comes_out_standardised():
    standardizer = ChannelStandardizer(CHANNELS)
    feats = tensors(batch(0))
    standardizer.update(feats)
    for feat in standardizer.normalize(feats):
        torch.testing.assert_close(feat.mean((0, 2, 3)), torch.zeros(feat.shape[1]), rtol=0, atol=1e-5)
        torch.testing.assert_close(feat.var((0, 2, 3), unbiased=False), torch.ones(feat.shape[1]), rtol=1e-4, atol=0)


@pytest.mark.parametrize('maps', [True, False])
def test_denormalize_is_the_inverse(maps):
    standardizer = ChannelStandardizer(CHANNELS)
    standardizer.update(tensors(batch(0, maps)))
    other = tensors(batch(1, maps))
    for back, feat in zip(standardizer.denormalize(standardizer.normalize(other)), other):
        torch.testing.assert_close(back, feat, rtol=1e-5, atol=1e-5)
    for back, feat in zip(standardizer.normalize(standardizer.denormalize(other)), other):
        torch.testing.assert_close(back, feat, rtol=1e-5, atol=1e-5)


def test_before_the_first_batch_it_changes_nothing():
    standardizer = ChannelStandardizer(CHANNELS)
    feats = tensors(batch(0))
    for feat, found in zip(feats, standardizer.normalize(feats)):
        assert torch.equal(found, feat)


def test_statistics_stay_after_the_last_update():
    standardizer = ChannelStandardizer(CHANNELS, max_updates=2)
    for seed in range(2):
        standardizer.update(tensors(batch(seed)))
    before = {name: value.clone() for name, value in standardizer.state_dict().items()}
    standardizer.update(tensors(batch(2)))
    assert all(torch.equal(value, before[name]) for name, value in standardizer.state_dict().items())
    assert before['updates'] == 2


def test_statistics_are_saved_and_carry_on():
    first, second, whole = (ChannelStandardizer(CHANNELS) for _ in range(3))
    first.update(tensors(batch(0)))
    second.load_state_dict(first.state_dict())
    second.update(tensors(batch(1)))
    for seed in range(2):
        whole.update(tensors(batch(seed)))
    assert sorted(whole.state_dict()) == ['mean0', 'mean1', 'updates', 'variance0', 'variance1']
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in second.state_dict().items())


def test_a_constant_channel_does_not_divide_by_zero():
    standardizer = ChannelStandardizer([2])
    standardizer.update([torch.full((4, 2), 3.0)])
    (found,) = standardizer.normalize([torch.full((1, 2), 3.0)])
    assert torch.equal(found, torch.zeros(1, 2))


def test_no_gradient_reaches_the_statistics():
    standardizer = ChannelStandardizer(CHANNELS)
    feats = [f.requires_grad_() for f in tensors(batch(0))]
    standardizer.update(feats)
    assert list(standardizer.parameters()) == []
    assert not any(buffer.requires_grad for buffer in standardizer.buffers())
    (feat, _), (scaled, _) = feats, standardizer.normalize(feats)
    # With fixed statistics the derivative of each element is 1 / std of its channel.
    std = feat.detach().std((0, 2, 3), unbiased=False).view(1, -1, 1, 1)
    (found,) = torch.autograd.grad(scaled.sum(), feat)
    torch.testing.assert_close(found, (1 / std).expand_as(feat), rtol=1e-4, atol=0)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_narrow_inputs_are_averaged_in_single_precision(dtype):
    standardizer = ChannelStandardizer([1])
    feat = torch.arange(1, 1001).view(-1, 1).to(dtype)
    standardizer.update([feat])
    values = feat.double()
    assert standardizer.mean0.item() == pytest.approx(values.mean().item(), rel=1e-6)
    (scaled,) = standardizer.normalize([feat])
    assert scaled.dtype == torch.float32
    expected = (values - values.mean()) / values.std(unbiased=False)
    torch.testing.assert_close(scaled.double(), expected, rtol=1e-4, atol=1e-4)


def test_it_follows_the_precision_of_its_model():
    standardizer = ChannelStandardizer(CHANNELS).double()
    feats = tensors(batch(0))
    standardizer.update([f.double() for f in feats])
    assert standardizer.mean1.dtype == torch.double
    assert_near(standardizer.mean1, feats[1].numpy().astype(np.float64).mean((0, 2, 3)))


def squared_averages(batches, level):
    """What the statistics were before they were kept as deviations: mean and mean of the squares, batch by batch."""
    over = (0, *range(2, batches[0][level].ndim))
    mean = np.mean([b[level].astype(np.float64).mean(over) for b in batches], 0)
    return mean, np.mean([(b[level].astype(np.float64) ** 2).mean(over) for b in batches], 0) - mean**2


def test_ordinary_data_gives_what_averages_of_squares_gave():
    batches = [batch(seed) for seed in range(20)]
    standardizer = ChannelStandardizer(CHANNELS)
    for feats in batches:
        standardizer.update(tensors(feats))
    new = batch(99)
    for level, found in enumerate(standardizer.normalize(tensors(new))):
        mean, variance = (v.reshape(1, -1, 1, 1) for v in squared_averages(batches, level))
        assert_near(found, (new[level] - mean) / np.sqrt(variance))


def test_a_mean_far_larger_than_the_deviation_leaves_the_deviation_right():
    """In float32 the mean of the squares minus the square of the mean gave a deviation of 1.40 here."""
    rng = np.random.default_rng(0)
    batches = [[(1000 + 0.5 * rng.normal(size=(4, 3, 8, 8))).astype(np.float32)] for _ in range(50)]
    standardizer = ChannelStandardizer([3])
    for feats in batches:
        standardizer.update(tensors(feats))
    seen = np.concatenate([b[0] for b in batches]).astype(np.float64)
    np.testing.assert_allclose(standardizer.variance0.numpy(), seen.var((0, 2, 3)), rtol=1e-4)
    (found,) = standardizer.normalize([torch.from_numpy(seen).float()])
    np.testing.assert_allclose(found.double().std((0, 2, 3), correction=0).numpy(), 1, rtol=1e-3)


@pytest.mark.parametrize('updates', [1000, 999])
def test_a_channel_that_comes_alive_late_does_not_outweigh_the_others(updates):
    standardizer = ChannelStandardizer([4])
    generator = torch.Generator().manual_seed(0)
    alive = torch.ones(1, 4, 1, 1)
    alive[0, 2] = 0
    for _ in range(updates):
        standardizer.update([torch.randn(2, 4, 4, 4, generator=generator) * alive])
    first = torch.zeros(2, 4, 4, 4)
    first[0, 2, 1, 1] = 1.0  # one deviation of the others
    standardizer.update([first])  # folded in only if it is among the first 1,000
    deviation, mean_deviation = (
        (1 / 32 / 1000) ** 0.5 * (updates == 999),
        3 / 4,
    )  # of the level, the dead one counted in
    expected = mean_deviation if updates == 1000 else (0.01 * mean_deviation) ** 2 / deviation
    (found,) = standardizer.normalize([first])
    assert found[0, 2, 1, 1].item() == pytest.approx(1 / expected, rel=0.05)
    (back,) = standardizer.denormalize([found])
    torch.testing.assert_close(back, first, rtol=1e-5, atol=1e-5)


def test_deviations_from_a_hundredth_of_the_mean_upwards_are_taken_as_they_are():
    standardizer = ChannelStandardizer([5])
    deviations = torch.tensor([0.0, 1e-3, 0.0101, 1.0, 4.0])
    standardizer.variance0.copy_(deviations.square())
    mean = deviations.mean().item()
    (found,) = standardizer.normalize([torch.ones(1, 5)])
    expected = [mean, (0.01 * mean) ** 2 / 1e-3, 0.0101, 1.0, 4.0]
    assert (1 / found[0]).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('value', [torch.nan, torch.inf])
def test_what_is_not_finite_is_never_folded_in(value):
    standardizer, clean = ChannelStandardizer(CHANNELS), ChannelStandardizer(CHANNELS)
    bad = tensors(batch(1))
    bad[1][0, 2, 3, 3] = value
    for feats in (tensors(batch(0)), bad, tensors(batch(2))):
        standardizer.update(feats)
        if feats is not bad:
            clean.update(feats)
    assert standardizer.updates == 2
    assert all(torch.equal(v, clean.state_dict()[k]) for k, v in standardizer.state_dict().items())
    first = ChannelStandardizer(CHANNELS)
    first.update(bad)
    assert all(torch.equal(v, ChannelStandardizer(CHANNELS).state_dict()[k]) for k, v in first.state_dict().items())


def test_batches_that_were_left_out_do_not_end_the_updates_early():
    standardizer = ChannelStandardizer(CHANNELS, max_updates=3)
    for seed in (None, 0, None, None, 1, None, 2, 3):
        feats = tensors(batch(seed or 0))
        standardizer.update(feats if seed is not None else [f * torch.nan for f in feats])
    expected = ChannelStandardizer(CHANNELS)
    for seed in range(3):
        expected.update(tensors(batch(seed)))
    assert all(torch.equal(v, expected.state_dict()[k]) for k, v in standardizer.state_dict().items())


def test_updates_that_were_undone_are_made_up_for():
    standardizer = ChannelStandardizer(CHANNELS, max_updates=2)
    before = {name: value.clone() for name, value in standardizer.named_buffers()}
    standardizer.update(tensors(batch(7)))
    for name, value in standardizer.named_buffers():
        value.copy_(before[name])
    for seed in range(3):
        standardizer.update(tensors(batch(seed)))
    assert standardizer.updates == 2
    assert_near(standardizer.mean0, np.concatenate([batch(s)[0] for s in range(2)]).mean((0, 2, 3)))


def test_a_checkpoint_with_means_of_squares_is_loaded_and_carries_on():
    batches = [batch(seed) for seed in range(3)]
    old = dict(updates=torch.tensor(2))
    for level in range(len(CHANNELS)):
        mean, variance = squared_averages(batches[:2], level)
        old[f'mean{level}'] = torch.from_numpy(mean).float()
        old[f'square{level}'] = torch.from_numpy(variance + mean**2).float()
    holder = torch.nn.ModuleDict(dict(standardizer=ChannelStandardizer(CHANNELS)))
    state = {f'standardizer.{name}': value for name, value in old.items()}
    holder.load_state_dict(state)
    assert 'standardizer.square0' in state  # the caller's is not changed
    standardizer = holder['standardizer']
    for level in range(len(CHANNELS)):
        np.testing.assert_allclose(
            getattr(standardizer, f'variance{level}'), squared_averages(batches[:2], level)[1], 1e-5
        )
    standardizer.update(tensors(batches[2]))
    for level in range(len(CHANNELS)):
        mean, variance = squared_averages(batches, level)
        np.testing.assert_allclose(getattr(standardizer, f'mean{level}'), mean, rtol=1e-5)
        np.testing.assert_allclose(getattr(standardizer, f'variance{level}'), variance, rtol=1e-5)


def test_a_loaded_standardizer_knows_that_it_has_seen_enough():
    first, second = ChannelStandardizer(CHANNELS, max_updates=1), ChannelStandardizer(CHANNELS, max_updates=1)
    first.update(tensors(batch(0)))
    second.load_state_dict(first.state_dict())
    second.update(tensors(batch(1)))
    assert all(torch.equal(value, first.state_dict()[name]) for name, value in second.state_dict().items())


@contextmanager
def gathering(monkeypatch, *others):
    """Stands in for other processes, whose moments are those of ``others``; counts the collectives."""
    import mmrkd.models.necks.channel_standardizer as module

    calls = []

    def all_gather(data):
        calls.append(data)
        return [data, *[torch.cat([m for feat in feats for m in module._moments(feat)]) for feats in others]]

    monkeypatch.setattr(module, 'all_gather', all_gather)
    yield calls


def test_processes_agree_with_one_collective(monkeypatch):
    standardizer, other = ChannelStandardizer(CHANNELS), tensors(batch(1))
    with gathering(monkeypatch, other) as calls:
        standardizer.update(tensors(batch(0)))
    assert len(calls) == 1
    for level in range(len(CHANNELS)):
        seen = np.concatenate([batch(0)[level], batch(1)[level]]).astype(np.float64)
        assert_near(getattr(standardizer, f'mean{level}'), seen.mean((0, 2, 3)))
        assert_near(getattr(standardizer, f'variance{level}'), seen.var((0, 2, 3)))


def test_a_process_whose_batch_is_not_finite_is_left_out(monkeypatch):
    standardizer, alone, other = ChannelStandardizer(CHANNELS), ChannelStandardizer(CHANNELS), tensors(batch(1))
    other[0][0, 0, 0, 0] = torch.nan
    alone.update(tensors(batch(0)))
    with gathering(monkeypatch, other):
        standardizer.update(tensors(batch(0)))
    assert all(torch.equal(v, alone.state_dict()[k]) for k, v in standardizer.state_dict().items())
