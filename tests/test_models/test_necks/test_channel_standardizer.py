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
    assert sorted(whole.state_dict()) == ['mean0', 'mean1', 'square0', 'square1', 'updates']
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
