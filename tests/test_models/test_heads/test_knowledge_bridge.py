"""The bridge starts as asked, predicts with the teacher's lower part, and merges into a plain model of the teacher."""

from copy import deepcopy

import pytest
import torch
from reference import second_teacher
from torch import nn

from mmrkd.models import FrozenTeacher, KnowledgeBridge, Pair
from mmrkd.structures import TeacherView
from mmrkd.testing import (
    build_model,
    classification_batch,
    detection_batch,
    model_inputs,
    save_random_teacher,
    tiny_classifier,
    tiny_retinanet,
)


def bridge_of(source, split='layer4', init='teacher'):
    teacher = FrozenTeacher(**source)
    bridge = KnowledgeBridge(Pair.of(teacher.adapter, teacher), split, init)
    bridge.init_weights()
    return bridge.eval()


def answer(sample):
    return (
        torch.cat([sample.pred_instances.bboxes.flatten(), sample.pred_instances.scores])
        if ('pred_instances' in sample)
        else sample.pred_score
    )


CASES = {
    'classifier': ('wide_classifier', classification_batch(), (None, 'layer2', 'neck', 'input')),
    'retinanet': ('wide_retinanet', detection_batch(), ('neck', 'layer4', 'input')),
    'faster_rcnn': ('wide_faster_rcnn', detection_batch(), ('neck', 'layer4')),
}


@pytest.mark.parametrize('kind, split', [(k, s) for k, (_, _, splits) in CASES.items() for s in splits])
def test_with_the_teachers_weights_it_is_the_teacher(kind, split, request):
    name, batch, _ = CASES[kind]
    source = request.getfixturevalue(name)
    bridge, whole = bridge_of(source, split), second_teacher(source, double=False)
    expected = whole(*model_inputs(whole, batch, False), mode='predict')
    found = bridge.predict(*model_inputs(whole, batch, False))
    for a, b in zip(found, expected):
        assert torch.equal(answer(a), answer(b))


@pytest.mark.parametrize('split', [None, 'neck', 'input'])
def test_random_weights_are_the_frameworks_own(wide_classifier, split):
    """The teacher's may not shine through: neither in what init_cfg sets nor in what constructors set."""
    bridge = bridge_of(wide_classifier, split, 'random')
    state = bridge.teacher.model.state_dict()
    for name, value in bridge.model.state_dict().items():
        assert value.dim() < 2 or not torch.equal(value, state[name]), name
    if split is None:
        block = bridge.model.backbone.layer4[0]
        assert block.bn1.running_mean.abs().max() == 0 and (block.bn1.weight == 1).all()
        assert (block.bn2.weight == 0).all()  # mmpretrain's zero_init_residual
        fan_out = block.conv2.out_channels * 9
        assert block.conv2.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
    assert bridge.model.head.fc.weight.std().item() == pytest.approx(0.01, rel=0.1)


def test_weights_that_no_rule_sets_are_not_left_over(tmp_path):
    """Without an init_cfg the constructor's values stay; a copy of the teacher would keep the teacher's."""
    cfg = tiny_classifier()
    cfg['backbone']['init_cfg'] = []
    source = save_random_teacher(cfg, tmp_path)
    bridge = bridge_of(source, None, 'random')
    own, teachers = bridge.model.backbone.layer4[0].conv1.weight, bridge.teacher.model.backbone.layer4[0].conv1.weight
    assert not torch.equal(own, teachers)
    assert own.abs().max() <= (own[0].numel()) ** -0.5  # torch draws from U(-1/sqrt(fan_in), 1/sqrt(fan_in))


def frozen_retinanet(tmp_path):
    cfg = tiny_retinanet()
    cfg['backbone'].update(norm_eval=True, frozen_stages=4, init_cfg=dict(type='Pretrained', checkpoint='no.pth'))
    cfg['backbone']['norm_cfg'] = dict(type='BN', requires_grad=False)
    loadable = deepcopy(cfg)
    del loadable['backbone']['init_cfg']
    return dict(save_random_teacher(loadable, tmp_path), cfg=cfg)


def test_fresh_weights_are_not_frozen_and_load_no_file(tmp_path):
    bridge = bridge_of(frozen_retinanet(tmp_path), 'layer4', 'random').train()
    assert all(p.requires_grad for p in bridge.parameters())
    assert all(m.training for m in bridge.model.modules())


def test_a_copy_keeps_the_settings_of_its_config(tmp_path):
    bridge = bridge_of(frozen_retinanet(tmp_path), 'layer4', 'teacher').train()
    assert not any(p.requires_grad for p in bridge.model.backbone.parameters())
    assert not bridge.model.backbone.layer4[0].bn1.training
    assert all(p.requires_grad for p in bridge.model.bbox_head.parameters())


def test_it_holds_nothing_of_the_lower_part_and_nothing_of_the_teacher(wide_classifier):
    names = list(bridge_of(wide_classifier).state_dict())
    assert all(name.startswith(('model.backbone.layer4.', 'model.head.')) for name in names)
    assert len(names) == len([n for n in second_teacher(wide_classifier).state_dict() if 'layer4' in n or 'head' in n])


@pytest.mark.parametrize('split', ['neck', 'layer4'])
def test_merged_weights_are_a_plain_model_that_predicts_as_it_does(wide_retinanet, split):
    bridge = bridge_of(wide_retinanet, split, 'random')
    for parameter in bridge.parameters():
        nn.init.normal_(parameter, std=0.1)
    plain = build_model(wide_retinanet['cfg']).eval()
    plain.load_state_dict(bridge.whole_state(), strict=True)
    inputs = model_inputs(plain, detection_batch(), False)
    for a, b in zip(bridge.predict(*deepcopy(inputs)), plain(*inputs, mode='predict')):
        assert torch.equal(answer(a), answer(b))
    first, second = bridge.teacher.model, plain
    assert torch.equal(first.backbone.layer3[0].conv1.weight, second.backbone.layer3[0].conv1.weight)
    assert not torch.equal(first.bbox_head.retina_cls.weight, second.bbox_head.retina_cls.weight)


def test_gradients_stay_in_the_bridge(wide_retinanet):
    bridge = bridge_of(wide_retinanet, 'layer4', 'random').train()
    inputs, samples = model_inputs(bridge.teacher.model, detection_batch())
    with bridge.teacher.adapter.tapped(bridge.taps) as taps:
        all_feats = bridge.teacher.extract(inputs)
    assert not any(value.requires_grad for value in taps.values())
    feats = bridge.extract_like(TeacherView(inputs, all_feats, all_feats, None, taps))
    losses, _ = bridge.adapter.task_loss(feats, inputs, samples)
    bridge.model.parse_losses(losses)[0].backward()
    assert all(p.grad is not None for p in bridge.parameters())
    assert all(p.grad is None for p in bridge.teacher.model.parameters())


def test_its_features_are_cut_to_the_students_grid(wide_retinanet):
    bridge = bridge_of(wide_retinanet, 'layer4')
    inputs = torch.randn(1, 3, 128, 96)
    with bridge.teacher.adapter.tapped(bridge.taps) as taps:
        all_feats = bridge.teacher.extract(inputs)
    cropped = tuple(f[..., :-1, :] for f in all_feats)
    with torch.no_grad():
        found = bridge.extract_like(TeacherView(inputs, cropped, cropped, None, taps))
    assert all(torch.equal(a, b) for a, b in zip(found, cropped))


def test_unknown_init(wide_classifier):
    with pytest.raises(ValueError, match=r"init must be one of \('random', 'teacher'\), found 'zero'"):
        bridge_of(wide_classifier, None, 'zero')
