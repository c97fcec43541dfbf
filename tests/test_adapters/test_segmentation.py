"""Segmentors of mmseg: features, logits, losses and predictions, compared with what the plain model gives."""

import copy

import pytest
import torch
import torch.nn.functional as F

from mmrkd.adapters import build_adapter, find_adapter
from mmrkd.testing import NUM_CLASSES, build_model, model_inputs, segmentation_batch, tiny_segmentor

pytest.importorskip('mmseg', reason='the extra `segmentation` is not installed')
PLACES = ('backbone', 'penultimate')


def segmentor(**kwargs):
    return build_model(tiny_segmentor(**kwargs))


def cascade(**refine):
    """OCRNet: an FCN head, then one that reads its output."""
    cfg = tiny_segmentor(aux=False)
    second = dict(cfg['decode_head'], type='OCRHead', ocr_channels=4, **refine)
    return dict(cfg, type='CascadeEncoderDecoder', num_stages=2, decode_head=[cfg['decode_head'], second])


def batch_for(model, training=True, **kwargs):
    return model_inputs(model, segmentation_batch(**kwargs), training)


def predicted(samples):
    return torch.stack([sample.seg_logits.data for sample in samples])


def test_what_it_serves():
    adapter = build_adapter(segmentor())
    assert (adapter.task, adapter.main_metric, adapter.default_tau) == ('segmentation', 'mIoU', 1.0)
    assert adapter.num_classes == NUM_CLASSES and not adapter.has_boxes and not adapter.background
    assert type(build_adapter(build_model(cascade()))) is type(adapter)
    from mmseg.models.segmentors import DepthEstimator

    with pytest.raises(TypeError, match='it regresses depths'):
        find_adapter(DepthEstimator)


def test_features_are_what_heads_read_and_the_decode_head_comes_first():
    adapter = build_adapter(segmentor(width=4))
    feats = tuple(torch.full((2, 1, 4, 4), float(level)) for level in range(4))
    assert [f.mean().item() for f in adapter.features(feats)] == [3, 2]
    assert [f.mean().item() for f in adapter.features(list(feats))] == [3, 2]
    replaced = adapter.replace(feats, {0: feats[3] + 10, 1: feats[2] + 20})
    assert [f.mean().item() for f in replaced] == [0, 1, 22, 13]
    assert [(level.channels, level.stride) for level in adapter.levels(adapter.dry_feats)] == [(32, 8), (16, 8)]


def test_an_index_from_the_end_and_several_of_one_head():
    head = dict(in_channels=[8, 32, 32], in_index=[0, -2, 2], input_transform='resize_concat')
    adapter = build_adapter(segmentor(aux=False, **head))
    assert adapter.positions(adapter.dry_feats) == (0, 2)


def test_without_an_auxiliary_head_only_one_map_is_read():
    adapter = build_adapter(segmentor(aux=False))
    assert adapter.positions(adapter.dry_feats) == (3,)
    assert adapter.auxiliary_outputs(adapter.dry_feats) == []


def test_logits_lie_in_the_order_of_positions():
    adapter = build_adapter(segmentor())
    outputs = torch.randn(2, NUM_CLASSES, 3, 5)
    (logits,), (maps,) = adapter.logits(outputs), adapter.logit_maps(outputs)
    assert maps is outputs and logits.shape == (2 * 3 * 5, NUM_CLASSES)
    assert torch.equal(logits[1 * 15 + 2 * 5 + 3], outputs[1, :, 2, 3])


def test_layout_and_strides():
    adapter = build_adapter(segmentor())
    expected = {'classes': NUM_CLASSES, 'sigmoid': False, 'stride': '8', 'align_corners': False}
    assert adapter.dry_run()[1] == expected and adapter.logit_strides() == [8]


def test_some_of_the_classes_as_another_model_numbers_them():
    adapter = build_adapter(segmentor())
    outputs = torch.randn(2, NUM_CLASSES, 3, 5)
    assert torch.equal(adapter.select_classes(outputs, [2, 0]), outputs[:, [2, 0]])
    assert adapter.layout(adapter.dry_feats, [2, 0])['classes'] == 2


def test_two_classes_told_apart_by_one_logit():
    loss = dict(type='CrossEntropyLoss', use_sigmoid=True)
    adapter = build_adapter(segmentor(aux=False, num_classes=2, out_channels=1, threshold=0.4, loss_decode=loss))
    assert adapter.dry_run()[1]['classes'] == 1 and adapter.sigmoid and adapter.num_classes == 2


@pytest.mark.parametrize('head', [dict(head='DAHead', pam_channels=4), dict(head='EncHead', num_codes=4)])
def test_of_several_outputs_the_first_are_the_logits(head):
    if head['head'] == 'EncHead':
        head.update(in_channels=[16, 32, 64], in_index=(1, 2, 3))
    model = segmentor(aux=False, **head)
    adapter = build_adapter(model)
    inputs, _ = batch_for(model)
    with adapter.evaluating():
        feats = adapter.extract(inputs)
        (found,) = adapter.logit_maps(adapter.head_outputs(feats))
        expected = model.decode_head(feats)
    assert adapter.dry_run()[1]['stride'] == '8' and torch.equal(found, expected[0])


@pytest.mark.parametrize('at', PLACES)
def test_task_loss_is_that_of_the_plain_model(at):
    model = segmentor(head='PSPHead').train()
    adapter = build_adapter(model, at)
    inputs, samples = batch_for(model)
    torch.manual_seed(0)
    state = copy.deepcopy(model.state_dict())
    expected = model(inputs, samples, mode='loss')
    after = copy.deepcopy(model.state_dict())
    model.load_state_dict(state)
    torch.manual_seed(0)
    calls = []
    handle = model.backbone.register_forward_hook(lambda *_: calls.append(1))
    losses, outputs = adapter.task_loss(adapter.extract(inputs), inputs, samples)
    handle.remove()
    assert len(calls) == 1
    assert losses.keys() == expected.keys() and all(torch.equal(losses[k], expected[k]) for k in expected)
    assert all(torch.equal(v, after[k]) for k, v in model.state_dict().items()), 'norms saw other batches'
    labels = adapter.targets(samples)
    resized = F.interpolate(outputs, labels.shape[1:], mode='bilinear', align_corners=False)
    ce = F.cross_entropy(resized, labels, ignore_index=255, reduction='none').mean()  # mmseg counts ignored pixels
    assert losses['decode.loss_ce'].item() == pytest.approx(ce.item(), rel=1e-5)


def test_targets_are_the_class_of_each_pixel():
    model = segmentor(width=4)
    _, samples = batch_for(model)
    labels = build_adapter(model).targets(samples)
    assert labels.shape == (2, 64, 64) and (labels[:, :, 0] == 255).all() and (labels[:, :, 1:] < NUM_CLASSES).all()
    assert torch.equal(labels[1], samples[1].gt_sem_seg.data[0])


@pytest.mark.parametrize('at', PLACES)
def test_predicts_from_given_features(at):
    model = segmentor().eval()
    adapter = build_adapter(model, at)
    inputs, samples = batch_for(model, training=False)
    with torch.no_grad():
        expected = predicted(model(inputs, copy.deepcopy(samples), mode='predict'))
        feats = adapter.extract(inputs)
        same = predicted(adapter.predict(feats, inputs, copy.deepcopy(samples)))
        other = adapter.replace(feats, {0: adapter.features(feats)[0] * 3 + 1})
        changed = predicted(adapter.predict(other, inputs, copy.deepcopy(samples)))
    assert torch.equal(same, expected) and not torch.allclose(changed, expected)


@pytest.mark.parametrize('at', PLACES)
def test_windows_have_features_of_their_own(at):
    model = segmentor().eval()
    adapter = build_adapter(model, at)
    inputs, samples = batch_for(model, training=False, size=(64, 96))
    model.test_cfg = type(model.test_cfg)(mode='slide', crop_size=(64, 64), stride=(32, 32))

    def doubled(images):
        feats = adapter.extract(images)
        return adapter.replace(feats, {0: adapter.features(feats)[0] * 2})

    with torch.no_grad():
        expected = predicted(model(inputs, copy.deepcopy(samples), mode='predict'))
        same = predicted(adapter.predict_through(adapter.extract, inputs, copy.deepcopy(samples)))
        found = predicted(adapter.predict_through(doubled, inputs, copy.deepcopy(samples)))
        with pytest.raises(ValueError, match='not those of its windows'):
            adapter.predict(adapter.extract(inputs), inputs, samples)
        windows = []
        for start in (0, 32):
            (logits,) = adapter.logit_maps(adapter.head_outputs(doubled(inputs[..., start : start + 64])))
            windows.append(F.interpolate(logits, (64, 64), mode='bilinear', align_corners=False))
    assert torch.equal(same, expected)
    total = F.pad(windows[0], (0, 32)) + F.pad(windows[1], (32, 0))
    count = torch.tensor([1.0] * 32 + [2.0] * 32 + [1.0] * 32)
    assert torch.allclose(found, total / count, atol=1e-6) and not torch.allclose(found, expected)
    assert "mode='whole'" in adapter.blend_obstacle


def test_blend_mixes_logits_and_turns_flipped_images_back():
    model = segmentor().eval()
    adapter = build_adapter(model)
    assert adapter.blend_obstacle is None
    inputs, samples = batch_for(model, training=False)
    for sample in samples:
        sample.set_metainfo(dict(flip=True, flip_direction='horizontal', ori_shape=(32, 32)))
    with torch.no_grad():
        outputs = adapter.head_outputs(adapter.extract(inputs))
        expected = predicted(model(inputs, copy.deepcopy(samples), mode='predict'))
        same = predicted(adapter.blend(outputs, outputs, 0.3, copy.deepcopy(samples)))
        finer = F.interpolate(3 * outputs, scale_factor=2, mode='nearest')
        found = predicted(adapter.blend(outputs, finer, 0.5, copy.deepcopy(samples)))
    assert torch.allclose(same, expected, atol=1e-6)
    assert torch.allclose(found, 2 * expected, atol=1e-5)  # (z + 3 z) / 2
    assert expected.shape[2:] == (32, 32)


def test_a_cascade_is_its_last_head():
    model = build_model(cascade()).train()
    adapter = build_adapter(model)
    inputs, samples = batch_for(model)
    losses, outputs = adapter.task_loss(adapter.extract(inputs), inputs, samples)
    assert adapter.head is model.decode_head[1] and {'decode_0.loss_ce', 'decode_1.loss_ce'} <= losses.keys()
    resized = F.interpolate(outputs, (64, 64), mode='bilinear', align_corners=False)
    ce = F.cross_entropy(resized, adapter.targets(samples), ignore_index=255, reduction='none').mean()
    assert losses['decode_1.loss_ce'].item() == pytest.approx(ce.item(), rel=1e-5)
    with pytest.raises(ValueError, match="it has 2 decode heads, one after the other. Use at='backbone'"):
        build_adapter(model, 'penultimate').dry_run()


def test_scores_of_points_are_no_map():
    cfg = cascade()
    cfg['decode_head'][1] = dict(
        type='PointHead', in_channels=[8], in_index=[0], channels=8, num_classes=NUM_CLASSES, align_corners=False
    )
    adapter = build_adapter(build_model(cfg))
    assert adapter.dry_run()[1] == {'dense head': 'none (PointHead: scores of single points)'}
    assert adapter.positions(adapter.dry_feats) == (0, 3) and adapter.blend_obstacle


def test_the_first_stage_of_several_says_what_is_read():
    adapter = build_adapter(segmentor())
    head = adapter.head
    head.kernel_generate_head = torch.nn.Module()
    head.kernel_generate_head.in_index, head.in_index = 1, None
    assert adapter.positions(tuple(torch.zeros(1, 1, 1, 1) for _ in range(4))) == (1, 2)


@pytest.mark.parametrize('at', PLACES)
def test_judging_gives_gradients_and_leaves_the_model_alone(at):
    model = segmentor().eval().requires_grad_(False)
    adapter = build_adapter(model, at)
    inputs, samples = batch_for(model)
    state = copy.deepcopy(model.state_dict())
    feats = adapter.extract(inputs)
    estimates = {i: f.clone().requires_grad_() for i, f in enumerate(adapter.features(feats))}
    losses, outputs = adapter.judge(adapter.replace(feats, estimates), inputs, samples)
    assert set(losses) >= {'decode.loss_ce'} and ('aux.loss_ce' in losses) == (at == 'backbone')
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    assert all(e.grad.abs().sum() > 0 for e in estimates.values()) and len(estimates) == (2 if at == 'backbone' else 1)
    assert torch.equal(outputs, adapter.head_outputs(feats)), 'dropout must be off in a frozen head'
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert not any(module.training for module in model.modules())


def test_a_head_with_two_forms_is_no_judge():
    cfg = tiny_segmentor(aux=False)
    norm = dict(type='BN', requires_grad=True)
    cfg['backbone'] = dict(type='DDRNet', channels=8, ppm_channels=8, norm_cfg=norm, align_corners=False)
    losses = [dict(type='OhemCrossEntropy', thres=0.9, min_kept=100)] * 2
    cfg['decode_head'] = dict(
        type='DDRHead', in_channels=32, channels=8, num_classes=NUM_CLASSES, norm_cfg=norm, loss_decode=losses
    )
    model = build_model(cfg).eval()
    adapter = build_adapter(model)
    inputs, samples = batch_for(model)
    assert adapter.dry_run()[1] == {'dense head': 'none (DDRHead: two outputs in training)'}
    assert [level.channels for level in adapter.levels(adapter.dry_feats)] == [32]
    with pytest.raises(ValueError, match="twi_on='none'"):
        adapter.judge(adapter.extract(inputs), inputs, samples)
    model.train()
    losses, _ = adapter.task_loss(adapter.extract(inputs), inputs, samples)
    assert any('loss' in name for name in losses)
    assert [f.shape[1] for f in adapter.features(adapter.extract(inputs))] == [32]


def test_the_penultimate_feature_is_what_the_last_convolution_reads():
    model = segmentor(head='ASPPHead', dilations=(1, 2), channels=12).eval()
    adapter = build_adapter(model, 'penultimate')
    inputs, _ = batch_for(model, training=False)
    with torch.no_grad():
        feats = adapter.extract(inputs)
        (u,) = adapter.features(feats)
        assert u.shape == (2, 12, 8, 8)
        assert torch.equal(model.decode_head.conv_seg(u), model.decode_head(feats['body']))
        assert torch.equal(adapter.head_outputs(feats), model.decode_head(feats['body']))
    assert adapter.dry_run()[1] == build_adapter(model).dry_run()[1]


def test_other_models_have_no_such_feature():
    from mmrkd.adapters.detection import DetectionAdapter

    with pytest.raises(ValueError, match="models for detection are those of backbone and neck.*found 'penultimate'"):
        DetectionAdapter.placed_at('penultimate')
    with pytest.raises(ValueError, match="found 'head'"):
        build_adapter(segmentor(width=4), 'head')
