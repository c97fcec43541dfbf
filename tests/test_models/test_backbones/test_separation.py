import pytest
import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.registry import init_default_scope

from mmrkd.models.backbones import separate
from mmrkd.registry import MODELS

BACKBONES = {  # the smaller share of the budget, of parameters and of operations, that each pair uses
    ('mmdet', 'ResNet-18'): (dict(type='ResNet', depth=18), 0.97),
    ('mmdet', 'ResNet-50'): (dict(type='ResNet', depth=50), 0.95),
    ('mmdet', 'ResNet-18w12'): (dict(type='ResNet', depth=18, base_channels=12, out_indices=(1, 2, 3)), 0.90),
    ('mmdet', 'ResNeXt-50'): (dict(type='ResNeXt', depth=50, groups=32, base_width=4), 0.93),
    ('mmdet', 'MobileNetV2'): (dict(type='MobileNetV2'), 0.88),
    ('mmdet', 'CSPDarknet'): (dict(type='CSPDarknet', widen_factor=0.5), 0.90),
    ('mmpretrain', 'ResNet-18'): (dict(type='ResNet', depth=18), 0.97),
    ('mmpretrain', 'ResNetV1d-50'): (dict(type='ResNetV1d', depth=50), 0.80),
    ('mmpretrain', 'ResNet_CIFAR-18w8'): (dict(type='ResNet_CIFAR', depth=18, base_channels=8, stem_channels=8), 0.93),
    ('mmpretrain', 'RegNetX-400MF'): (dict(type='RegNet', arch='regnetx_400mf'), 0.60),
    ('mmpretrain', 'ConvNeXt-atto'): (dict(type='ConvNeXt', arch='atto'), 0.90),
    ('mmpretrain', 'MobileNetV1'): (dict(type='mmrkd.MobileNetV1'), 0.75),
}
QUICK = ('ResNet-18w12', 'ResNet_CIFAR-18w8', 'ConvNeXt-atto')  # the others take seconds each


def cost(cfg, size=64):
    """Parameters and operations, counted by mmengine's own front end on a module that is built afresh."""
    model = MODELS.build(cfg)
    model.eval()
    info = get_model_complexity_info(model, (3, size, size), show_table=False, show_arch=False)
    return sum(p.numel() for p in model.parameters()), int(info['flops'])


@pytest.mark.parametrize(
    'scope, name',
    [pytest.param(*key, marks=[] if key[1] in QUICK else [pytest.mark.slow]) for key in BACKBONES],
)
def test_the_pair_holds_the_budget_and_uses_it(scope, name):
    cfg, used = BACKBONES[scope, name]
    init_default_scope(scope)
    found = separate(cfg, 0.25, input_size=64)
    original, pair = cost(cfg), cost(found.backbone)
    assert (found.original.params, found.original.flops) == original
    assert (found.pair.params, found.pair.flops) == pair
    assert pair[0] <= original[0] and pair[1] <= original[1]
    assert found.assistant.params <= 0.25 * original[0] and found.assistant.flops <= 0.25 * original[1]
    assert found.student.params + found.assistant.params == pair[0]
    assert found.student.flops + found.assistant.flops == pair[1]
    assert max(pair[0] / original[0], pair[1] / original[1]) >= used, 'most of the budget is used'


def test_stages_have_the_widths_and_strides_of_the_original():
    init_default_scope('mmdet')
    cfg = dict(type='ResNet', depth=18, base_channels=8, stem_channels=8, out_indices=(1, 3))
    pair, original = MODELS.build(separate(cfg, input_size=64).backbone), MODELS.build(cfg)
    images = torch.randn(1, 3, 64, 64)
    assert [f.shape for f in pair(images)] == [f.shape for f in original(images)]


def test_one_step_wider_would_not_fit():
    """The assistant against its share, the student against what is left."""
    init_default_scope('mmdet')
    cfg = dict(type='ResNet', depth=18, base_channels=12, stem_channels=12)
    found = separate(cfg, 0.25, input_size=64).backbone
    original = cost(cfg)
    student, assistant = found['student']['base_channels'], found['assistant']['base_channels']

    def pair(s, a):
        parts = {n: dict(cfg, base_channels=w, stem_channels=w) for n, w in (('student', s), ('assistant', a))}
        return cost(dict(found, **parts))

    assert any(p > o for p, o in zip(pair(student + 1, assistant), original))
    alone = cost(dict(found, student=dict(cfg, base_channels=1, stem_channels=1), assistant=None))
    share = [p - o for p, o in zip(pair(1, assistant + 1), alone)]
    assert any(s > 0.25 * o for s, o in zip(share, original))


@pytest.mark.parametrize('share', [0.1, 0.5])
def test_the_share_is_what_the_assistant_may_cost(share):
    init_default_scope('mmdet')
    found = separate(dict(type='ResNet', depth=18, base_channels=16, stem_channels=16), share, input_size=64)
    costs = [found.assistant.params / found.original.params, found.assistant.flops / found.original.flops]
    assert 0.6 * share < max(costs) <= share


def test_pretrained_weights_and_what_rests_on_them_are_left_out():
    init_default_scope('mmdet')
    cfg = dict(
        type='ResNet',
        depth=18,
        base_channels=8,
        frozen_stages=1,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18'),
    )
    found = separate(cfg, input_size=64).backbone
    for part in (found['student'], found['assistant']):
        assert 'init_cfg' not in part and part['frozen_stages'] == -1 and part['norm_eval'] is False
    assert cfg['frozen_stages'] == 1
    scratch = separate(dict(cfg, init_cfg=None), input_size=64).backbone
    assert scratch['student']['frozen_stages'] == 1 and 'norm_eval' not in scratch['student']


def test_the_table_has_a_row_for_each_cost():
    init_default_scope('mmdet')
    found = separate(dict(type='ResNet', depth=18, base_channels=8, stem_channels=8), input_size=64)
    rows = [line.split('|')[1:-1] for line in found.table().splitlines()[2:]]
    assert [row[0].strip() for row in rows] == ['original', 'student', 'assistant', 'pair']
    assert float(rows[3][1]) == round(found.pair.params / 1e6, 4) and rows[0][3].strip() == '100.0%'


@pytest.mark.parametrize('share', [0, 1, -0.1, 1.5])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match='assistant_share must be in'):
        separate(dict(type='ResNet', depth=18), share)


def test_a_budget_that_nothing_fits_is_refused_with_the_numbers():
    init_default_scope('mmdet')
    with pytest.raises(ValueError, match='the width has only 2 steps') as error:
        separate(dict(type='ResNet', depth=18, base_channels=2, stem_channels=2), 0.1, input_size=64)
    assert 'wider backbone' in str(error.value) and 'M parameters' in str(error.value)


def test_a_backbone_with_few_widths_says_why():
    init_default_scope('mmpretrain')
    with pytest.raises(ValueError, match=r'ShuffleNetV2 cannot be narrowed to .*widen_factor.* It says: .*0\.5, 1\.0'):
        separate(dict(type='ShuffleNetV2'), input_size=64)
