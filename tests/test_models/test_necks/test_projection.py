import pytest
import torch
from torch import nn

from mmrkd.models.necks import Projection, linear_part


def test_levels_of_one_pair_of_widths_share_a_layer():
    projection = Projection([4, 8, 4], [6, 6, 6])
    feats = [torch.randn(2, c, s, s) for c, s in ((4, 4), (8, 2), (4, 1))]
    narrow, wide = projection.layers
    assert (narrow.weight.shape, wide.weight.shape) == ((6, 4, 1, 1), (6, 8, 1, 1))
    for found, expected in zip(projection(feats), (narrow(feats[0]), wide(feats[1]), narrow(feats[2]))):
        assert torch.equal(found, expected)


def test_each_level_can_have_its_own():
    projection = Projection([4, 4], [6, 6], per_level=True)
    assert len(projection.layers) == 2 and not torch.equal(*(layer.weight for layer in projection.layers))


def test_where_widths_agree_it_can_pass_on():
    projection = Projection([4, 5], [4, 6], vectors=True, always=False)
    vector = torch.randn(2, 4)
    assert projection([vector, torch.randn(2, 5)])[0] is vector
    assert [type(layer) for layer in projection.layers] == [nn.Identity, nn.Linear]


def test_other_numbers_of_levels_are_refused():
    with pytest.raises(ValueError, match=r'found \[4\] and \[6, 6\]'):
        Projection([4], [6, 6])


@pytest.mark.parametrize('vectors', [True, False])
def test_the_linear_part_has_no_bias_and_trains_nothing(vectors):
    layer = Projection([3], [5], vectors).layers[0]
    feat = torch.randn((2, 3) if vectors else (2, 3, 4, 4), requires_grad=True)
    found = linear_part(layer, feat)
    torch.testing.assert_close(found, layer(feat) - layer(torch.zeros_like(feat)))
    found.sum().backward()
    assert layer.weight.grad is None and feat.grad is not None
    assert linear_part(nn.Identity(), feat) is feat
