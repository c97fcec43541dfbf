import pytest
import torch
from torch import nn

from mmrkd.models.backbones import MobileNetV1
from mmrkd.registry import MODELS

# (input channels, output channels, stride) of the 13 depthwise separable blocks, table 1 of arXiv 1704.04861.
BLOCKS = (
    (32, 64, 1),
    (64, 128, 2),
    (128, 128, 1),
    (128, 256, 2),
    (256, 256, 1),
    (256, 512, 2),
    *[(512, 512, 1)] * 5,
    (512, 1024, 2),
    (1024, 1024, 1),
)


def parameters_by_hand(width):
    stem = int(32 * width)
    total = 3 * 3 * 3 * stem + 2 * stem
    for c_in, c_out in ((int(i * width), int(o * width)) for i, o, _ in BLOCKS):
        total += 3 * 3 * c_in + 2 * c_in  # depthwise
        total += c_in * c_out + 2 * c_out  # pointwise
    return total


def test_parameter_count_of_the_full_width():
    assert parameters_by_hand(1.0) == 3206976
    assert sum(p.numel() for p in MobileNetV1().parameters()) == 3206976


@pytest.mark.parametrize('width', [0.25, 0.5])
def test_parameter_count_of_narrow_ones(width):
    assert sum(p.numel() for p in MobileNetV1(width).parameters()) == parameters_by_hand(width)


def test_width_has_a_floor_of_eight_channels():
    feats = MobileNetV1(0.05, out_indices=range(5)).eval()(torch.zeros(1, 3, 32, 32))
    assert [f.shape[1] for f in feats] == [8, 8, 12, 25, 51]


def test_blocks_are_those_of_the_paper():
    convs = [m for m in MobileNetV1().modules() if isinstance(m, nn.Conv2d)]
    found = [(c.in_channels, c.out_channels, c.stride[0], c.kernel_size[0], c.groups) for c in convs]
    expected = [(3, 32, 2, 3, 1)]
    for c_in, c_out, stride in BLOCKS:
        expected += [(c_in, c_in, stride, 3, c_in), (c_in, c_out, 1, 1, 1)]
    assert found == expected
    assert all(c.bias is None for c in convs)


@pytest.mark.parametrize(
    'indices, shapes',
    [
        ((4,), [(2, 256, 2, 2)]),
        ((0, 2, 4), [(2, 16, 32, 32), (2, 64, 8, 8), (2, 256, 2, 2)]),
        (range(5), [(2, 16, 32, 32), (2, 32, 16, 16), (2, 64, 8, 8), (2, 128, 4, 4), (2, 256, 2, 2)]),
    ],
)
def test_stages(indices, shapes):
    feats = MobileNetV1(0.25, out_indices=indices).eval()(torch.zeros(2, 3, 64, 64))
    assert isinstance(feats, tuple)
    assert [tuple(f.shape) for f in feats] == shapes


def test_stages_do_not_depend_on_which_others_are_returned():
    torch.manual_seed(0)
    backbone = MobileNetV1(0.25, out_indices=(1, 4)).eval()
    images = torch.randn(1, 3, 64, 64)
    x = backbone.stem(images)
    assert x.min() >= 0  # ReLU closes the stem and every block
    for stage in backbone.stages[:2]:
        x = stage(x)
    both = backbone(images)
    assert both[0].abs().max() > 0 and torch.equal(both[0], x)
    for stage in backbone.stages[2:]:
        x = stage(x)
    assert torch.equal(both[1], x)


@pytest.mark.parametrize('indices', [(5,), (-1, 4), (0, 7)])
def test_stages_out_of_range(indices):
    with pytest.raises(ValueError, match=r'out_indices must be in 0 \.\. 4, found'):
        MobileNetV1(0.25, out_indices=indices)


def test_initial_weights():
    torch.manual_seed(0)
    backbone = MODELS.build(dict(type='MobileNetV1', widen_factor=0.5))
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 0.5)
    backbone.init_weights()
    assert all((m.weight == 1).all() for m in backbone.modules() if isinstance(m, nn.BatchNorm2d))
    # Kaiming, fan out: variance 2 / (512 output channels) of the last pointwise convolution.
    last = [m for m in backbone.modules() if isinstance(m, nn.Conv2d)][-1]
    assert last.weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.02)
