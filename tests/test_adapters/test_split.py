"""The upper part of a model, run alone, computes exactly what the whole model computes: one line for each family."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from mmrkd.adapters import build_adapter
from mmrkd.adapters.split import Handout, cut_model, find_split, handing
from mmrkd.testing import build_model, tiny_classifier, tiny_faster_rcnn, tiny_retinanet

SWIN = dict(arch=dict(embed_dims=8, depths=[1, 1, 2, 1], num_heads=[1, 1, 2, 2]), window_size=4, img_size=128)
VIT = dict(arch=dict(embed_dims=16, num_layers=3, num_heads=2, feedforward_channels=16), img_size=32)
NARROW = dict(base_channels=16, stem_channels=8)
# Type and settings of the backbone, channels of its last stage, where the upper part begins, one thing that is in the
# upper part and one that is not.
FAMILIES = {
    'ResNet': ('ResNet', dict(depth=18, **NARROW), 128, None, 'layer4.0', 'layer3'),
    'ResNet-D': ('ResNetV1d', dict(depth=18, **NARROW), 128, None, 'layer4.0', 'stem'),
    'ResNeXt': ('ResNeXt', dict(depth=50, groups=4, width_per_group=4, **NARROW), 512, None, 'layer4', 'bn1'),
    'WideResNet': ('ResNet', dict(depth=50, expansion=2, **NARROW), 256, None, 'layer4', 'conv1'),
    'WRN': ('mmrkd.WideResNet', dict(depth=10, widen_factor=1), 64, None, 'layer3', 'layer2'),
    'MobileNet-V2': ('MobileNetV2', dict(widen_factor=0.1), 1280, None, 'layer6', 'layer5'),
    'RegNet': (
        'RegNet',
        dict(arch=dict(w0=8, wa=8, wm=2, group_w=8, depth=6, bot_mul=1.0)),
        64,
        None,
        'layer4',
        'layer3',
    ),
    'ConvNeXt': (
        'ConvNeXt',
        dict(arch=dict(depths=[1] * 4, channels=[8] * 4)),
        8,
        None,
        'downsample_layers.3',
        'stages.2',
    ),
    'Swin': ('SwinTransformer', SWIN, 64, None, 'stages.2.downsample', 'stages.2.blocks'),
    'Swin with positions': ('SwinTransformer', dict(SWIN, use_abs_pos_embed=True), 64, 'stages.3', 'norm3', 'absolute'),
    'ViT': ('VisionTransformer', VIT, 16, 'layers.2', 'ln1', 'cls_token'),
}


def classifier(family):
    kind, settings, channels, *_ = FAMILIES[family]
    cfg = tiny_classifier()
    cfg['backbone'], cfg['head']['in_channels'] = dict(type=kind, **settings), channels
    if kind in ('ConvNeXt', 'VisionTransformer'):  # pooled already
        cfg['neck'] = None
    return build_model(cfg)


def stirred(model):
    """Running statistics that are not those of a fresh model."""
    for name, buffer in model.named_buffers():
        if name.endswith('running_mean'):
            buffer.normal_()
        elif name.endswith('running_var'):
            buffer.uniform_(0.5, 2)
    return model


def run_upper(adapter, split, inputs):
    """Outputs of the head of the whole model, and of the upper part alone, which is returned too."""
    with adapter.evaluating(), adapter.tapped(split.taps) as taps:
        expected = adapter.head_outputs(adapter.extract(inputs))
    upper = build_adapter(cut_model(deepcopy(adapter.model), split))
    with upper.evaluating(), handing(upper.model, taps):
        return expected, upper.head_outputs(upper.extract(inputs)), upper.model


@pytest.mark.parametrize('family', FAMILIES)
def test_upper_part_of_a_classifier_is_bit_for_bit_the_model(family):
    *_, first, holds, lacks = FAMILIES[family]
    adapter = build_adapter(stirred(classifier(family)))
    split = find_split(adapter, first)
    expected, found, upper = run_upper(adapter, split, torch.randn(2, 3, adapter.dry_size, adapter.dry_size))
    assert torch.equal(found, expected) and expected.std() > 0
    names = list(upper.state_dict())
    assert any(name.startswith(f'backbone.{holds}') for name in names)
    assert not any(name.startswith(f'backbone.{lacks}') for name in names)
    assert set(names) < set(adapter.model.state_dict())


@pytest.mark.parametrize('first', ['neck', 'layer4', 'layer3.1', 'backbone.layer2', 'neck.fpn_convs.0'])
@pytest.mark.parametrize('cfg', [tiny_retinanet(), tiny_faster_rcnn()], ids=['retinanet', 'faster_rcnn'])
def test_upper_part_of_a_detector_is_bit_for_bit_the_model(cfg, first):
    adapter = build_adapter(stirred(build_model(cfg)))
    split = find_split(adapter, first)
    expected, found, upper = run_upper(adapter, split, torch.randn(2, 3, 96, 64))
    assert all(torch.equal(a, b) for p, q in zip(found, expected) for a, b in zip(p, q))
    assert ('neck.lateral_convs.0.conv.weight' in upper.state_dict()) == (first not in ('neck', 'neck.fpn_convs.0'))


def test_only_what_the_upper_part_reads_is_tapped():
    split = find_split(build_adapter(build_model(tiny_retinanet())), 'layer4')  # its FPN begins at layer2
    assert split.taps == ('backbone.layer2', 'backbone.layer3')
    assert split.lower[0] == 'backbone.conv1' and split.lower[-1] == 'backbone.layer3'
    assert find_split(build_adapter(build_model(tiny_retinanet())), 'neck').taps == ('neck',)


def test_nothing_lies_below_the_input():
    model = build_model(tiny_classifier())
    split = find_split(build_adapter(model), 'input')
    assert (split.lower, split.taps, split.unused) == ((), (), ())
    assert list(cut_model(deepcopy(model), split).state_dict()) == list(model.state_dict())


def test_what_only_the_lower_part_needs_is_no_parameter():
    model = classifier('ViT')
    split = find_split(build_adapter(model), 'layers.1')
    assert split.unused == ('backbone.cls_token', 'backbone.pos_embed')
    upper = cut_model(deepcopy(model), split)
    assert not any('embed' in name or 'token' in name for name, _ in upper.named_parameters())
    assert not any('embed' in name or 'token' in name for name in upper.state_dict())


def test_looking_for_the_split_changes_nothing():
    model = build_model(tiny_retinanet()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    find_split(build_adapter(model), 'layer4')
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training and all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_an_unknown_module_is_named():
    with pytest.raises(KeyError, match="no module 'backbone.layer5'.*backbone.layer"):
        find_split(build_adapter(build_model(tiny_classifier())), 'layer5')


def test_a_module_that_is_not_called_begins_nothing():
    with pytest.raises(ValueError, match="'bbox_head.retina_cls' cannot begin the upper part: the model never calls"):
        find_split(build_adapter(build_model(tiny_retinanet())), 'bbox_head.retina_cls')


def test_a_backbone_of_one_resolution_needs_a_name():
    model = classifier('ViT')
    with pytest.raises(ValueError, match=r"VisionTransformer has no stage of lower resolution.*'layers.0', 'layers.1'"):
        find_split(build_adapter(model), None)


def test_a_model_whose_upper_part_looks_below_is_refused():
    class Peeking(type(build_model(tiny_classifier()).backbone)):
        def forward(self, x):
            return tuple(out * self.conv1.weight.sum() for out in super().forward(x))

    model = build_model(tiny_classifier())
    model.backbone.__class__ = Peeking
    with pytest.raises(ValueError, match="ImageClassifier cannot be cut at 'backbone.layer4'.*AttributeError.*weight"):
        find_split(build_adapter(model), 'layer4')


def test_what_is_handed_out_is_forgotten():
    model = nn.Sequential(Handout(), nn.ReLU())
    with handing(model, {'0': torch.tensor([-1.0, 2.0])}):
        assert model(torch.zeros(2)).tolist() == [0.0, 2.0]
    assert model(torch.tensor([5.0, -5.0])).tolist() == [5.0, 0.0]
    with pytest.raises(RuntimeError), handing(model, {'0': torch.ones(2)}):
        raise RuntimeError
    assert model[0].value is None
