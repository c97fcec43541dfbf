import pytest
import torch

from mmrkd.models.losses import generation_error
from mmrkd.models.necks import FeatureGenerator, draw_kept


def test_number_worked_out_by_hand():
    generator = FeatureGenerator(1)
    with torch.no_grad():
        for index, weight, bias in ((0, 0.1, -0.1), (2, 0.2, 0.05)):
            generator.layers[index].weight.fill_(weight)
            generator.layers[index].bias.fill_(bias)
    feat, target = torch.tensor([[[[1.0, 2], [3, 4]]]]), torch.tensor([[[[0.5, 1], [1.5, 2]]]])
    keep = torch.tensor([[[[1.0, 0], [0, 1]]]])
    assert generation_error(generator(feat, keep), target).item() == pytest.approx(4.347600, abs=1e-5)


def test_what_is_hidden_gets_no_gradient():
    feat = torch.ones(2, 3, 4, 4, requires_grad=True)
    keep = draw_kept(feat, 0.5, 'cells')
    FeatureGenerator(3)(feat, keep).square().sum().backward()
    assert torch.equal((feat.grad != 0).any(dim=1), keep[:, 0] == 1) and 0 < keep.mean() < 1


@pytest.mark.parametrize('hidden, shape', [('cells', (64, 1, 20, 20)), ('channels', (64, 300, 1, 1))])
def test_masks_are_drawn_for_each_image(hidden, shape):
    feat = torch.zeros(64, 300, 20, 20)
    keep = draw_kept(feat, 0.65, hidden)
    assert keep.shape == shape and set(keep.unique().tolist()) == {0.0, 1.0}
    assert keep.mean().item() == pytest.approx(0.35, abs=0.02)
    assert not torch.equal(keep[0], keep[1]) and not torch.equal(keep, draw_kept(feat, 0.65, hidden))
    torch.manual_seed(7)
    first = draw_kept(feat, 0.65, hidden)
    torch.manual_seed(7)
    assert torch.equal(first, draw_kept(feat, 0.65, hidden)), 'a resumed run draws the same'
