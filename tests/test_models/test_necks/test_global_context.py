import pytest
import torch

from mmrkd.models.necks import GlobalContext


def test_it_begins_as_the_identity():
    block, feat = GlobalContext(4), torch.randn(2, 4, 3, 5)
    block.init_weights()
    torch.testing.assert_close(block(feat), feat)
    assert block.position.weight.std() > 0
    names = {name: tuple(p.shape) for name, p in block.named_parameters()}
    assert names['transform.0.weight'] == (2, 4, 1, 1) and names['transform.1.weight'] == (2, 1, 1)
    assert sum(name.endswith('bias') for name in names) == 4


def test_against_loops():
    block, feat = GlobalContext(4).double(), torch.randn(2, 4, 3, 5, dtype=torch.double)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_()
        state, found = block.state_dict(), block(feat)
    for image, result in zip(feat, found):
        cells = image.flatten(1).T  # (15, 4)
        weights = torch.exp(cells @ state['position.weight'].flatten() + state['position.bias'])
        context = (weights[:, None] * cells).sum(0) / weights.sum()
        inner = state['transform.0.weight'].flatten(1) @ context + state['transform.0.bias']
        inner = (inner - inner.mean()) / (inner.var(unbiased=False) + 1e-5).sqrt()
        inner = (inner * state['transform.1.weight'].flatten() + state['transform.1.bias'].flatten()).clamp(min=0)
        added = state['transform.3.weight'].flatten(1) @ inner + state['transform.3.bias']
        torch.testing.assert_close(result, image + added[:, None, None])


@pytest.mark.parametrize('channels', [1, 2, 7])
def test_narrow_features(channels):
    assert GlobalContext(channels)(torch.rand(1, channels, 2, 2)).shape == (1, channels, 2, 2)
