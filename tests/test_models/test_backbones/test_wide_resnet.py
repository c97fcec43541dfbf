import pytest
import torch
import torch.nn.functional as F

from mmrkd.models.backbones import WideResNet
from mmrkd.registry import MODELS


# With a linear layer for 10 classes; the paper (arXiv 1605.07146) says 36.5 M for WRN-28-10 and 2.2 M for WRN-40-2.
@pytest.mark.parametrize('depth, k, total', [(28, 10, 36479194), (40, 2, 2243546), (40, 1, 563930), (16, 4, 2748890)])
def test_parameter_count(depth, k, total):
    with torch.device('meta'):
        assert sum(p.numel() for p in WideResNet(depth, k).parameters()) + 10 * (64 * k + 1) == total


def test_stages():
    model = MODELS.build(dict(type='mmrkd.WideResNet', depth=10, widen_factor=2, out_indices=(0, 1, 2)))
    assert [tuple(f.shape) for f in model(torch.rand(2, 3, 32, 32))] == [
        (2, 32, 32, 32), (2, 64, 16, 16), (2, 128, 8, 8),
    ]  # fmt: skip
    (last,) = WideResNet(10, 1)(torch.rand(1, 3, 16, 16))
    assert last.min() >= 0 and last.shape == (1, 64, 4, 4)


def test_the_shortcut_branches_off_where_the_shape_changes():
    model = WideResNet(16, 2).eval()
    x = torch.randn(2, 16, 8, 8)
    first, second = model.layer1

    def norm(bn, value):
        return F.relu(F.batch_norm(value, bn.running_mean, bn.running_var, bn.weight, bn.bias))

    active = norm(first.bn1, x)
    branch = F.conv2d(norm(first.bn2, F.conv2d(active, first.conv1.weight, padding=1)), first.conv2.weight, padding=1)
    torch.testing.assert_close(first(x), F.conv2d(active, first.shortcut.weight) + branch)
    y = torch.randn(2, 32, 8, 8)
    active = F.conv2d(norm(second.bn1, y), second.conv1.weight, padding=1)
    torch.testing.assert_close(second(y), y + F.conv2d(norm(second.bn2, active), second.conv2.weight, padding=1))


def test_arguments_are_checked():
    with pytest.raises(ValueError, match='depth must be 6 n'):
        WideResNet(18)
    with pytest.raises(ValueError, match='out_indices must be in 0 .. 2'):
        WideResNet(16, out_indices=(3,))
