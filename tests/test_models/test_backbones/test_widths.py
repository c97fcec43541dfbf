import pytest
from mmengine.registry import init_default_scope

from mmrkd.models.backbones.widths import Widths


@pytest.mark.parametrize(
    'scope, backbone, steps, expected',
    [
        ('mmdet', dict(type='ResNet', depth=18), 32, dict(base_channels=32)),
        ('mmpretrain', dict(type='ResNet', depth=18), 48, dict(base_channels=48, stem_channels=48)),
        (
            'mmpretrain',
            dict(type='ResNet_CIFAR', depth=18, base_channels=8),
            3,
            dict(base_channels=3, stem_channels=24),
        ),
        (
            'mmdet',
            dict(type='ResNeXt', depth=50, groups=32, base_width=4),
            32,
            dict(base_channels=32, groups=16),
        ),
        ('mmpretrain', dict(type='ResNeXt', depth=50), 2, dict(base_channels=2, stem_channels=2, groups=2)),
        (
            'mmdet',
            dict(type='Res2Net', depth=50, scales=4, base_width=26),
            32,
            dict(base_channels=32, base_width=13),
        ),
        ('mmpretrain', dict(type='MobileNetV2', widen_factor=0.5), 16, dict(widen_factor=0.25)),
        ('mmpretrain', dict(type='ConvNeXt', arch='atto'), 20, dict(channels=[20, 40, 80, 160])),
        ('mmdet', dict(type='SwinTransformer', embed_dims=96, num_heads=[3, 6, 12, 24]), 16, dict(embed_dims=48)),
        ('mmpretrain', dict(type='SwinTransformer', arch='tiny'), 8, dict(embed_dims=24)),
        ('mmdet', dict(type='RegNet', arch='regnetx_800mf'), 4, dict(w0=32, wa=35.73 * 4 / 7, wm=2.28)),
    ],
)
def test_width_arguments_shrink_together(scope, backbone, steps, expected):
    init_default_scope(scope)
    narrow = Widths.of(backbone).narrowed(backbone, steps)
    found = narrow['arch'] if isinstance(narrow.get('arch'), dict) else narrow
    assert all(found[name] == pytest.approx(value) for name, value in expected.items())
    changed = {name for name in narrow if narrow[name] != backbone.get(name)}
    assert changed <= {*expected, 'arch', 'stem_channels'}


def test_the_original_is_the_last_step_and_is_not_changed():
    init_default_scope('mmdet')
    backbone = dict(type='ResNet', depth=18, base_channels=12, norm_cfg=dict(type='BN'))
    before = dict(backbone, norm_cfg=dict(type='BN'))
    widths = Widths.of(backbone)
    assert widths.grid == 12 and widths.narrowed(backbone, 12) == before
    widths.narrowed(backbone, 3)['norm_cfg']['type'] = 'GN'
    assert backbone == before


@pytest.mark.parametrize('cfg', [dict(type='VGG', depth=11), dict(type='MobileNetV3'), dict(type='HRNet', arch='w18')])
def test_what_has_no_width_argument_is_refused_with_its_arguments(cfg):
    init_default_scope('mmpretrain')
    with pytest.raises(ValueError, match=f'{cfg["type"]} cannot be narrowed: expected a width argument') as error:
        Widths.of(cfg)
    assert "'norm_cfg'" in str(error.value) and 'base_channels' in str(error.value)


def test_an_unknown_type_is_refused():
    init_default_scope('mmdet')
    with pytest.raises(KeyError, match='ResNet_CIFAR'):
        Widths.of(dict(type='ResNet_CIFAR', depth=18))
