"""Pose estimators of mmpose: features, outputs, losses and predictions, compared with what the plain model gives."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmrkd.adapters import build_adapter
from mmrkd.adapters.names import mirror_gap, names_in
from mmrkd.testing import NUM_KEYPOINTS, build_model, model_inputs, pose_batch, tiny_pose

pytest.importorskip('mmpose', reason='the extra `pose` is not installed')
PLACES = ('backbone', 'penultimate')
HEADS = ('heatmaps', 'coordinates')
FLIPS = dict(flip_test=True, flip_mode='heatmap', shift_heatmap=True)
MIRROR = [1, 0, 2]  # of the keypoints of pose_batch


def estimator(head='heatmaps', flips=False, width=4, **kwargs):
    cfg = tiny_pose(head, width=width, **kwargs)
    return build_model(dict(cfg, test_cfg=FLIPS) if flips else cfg)


def simcc(deconvolutions=1, width=4):
    cfg = tiny_pose('coordinates', width=width)
    cfg['head'] = dict(
        type='SimCCHead',
        in_channels=8 * width,
        out_channels=NUM_KEYPOINTS,
        input_size=(64, 96),
        in_featuremap_size=(2, 3),
        simcc_split_ratio=2.0,
        deconv_out_channels=(width,) * deconvolutions or None,
        deconv_kernel_sizes=(4,) * deconvolutions,
        loss=dict(type='KLDiscretLoss', use_target_weight=True),
        decoder=dict(type='SimCCLabel', input_size=(64, 96), sigma=6.0, simcc_split_ratio=2.0),
    )
    return build_model(cfg)


def hrnet(channels=4):
    """Two branches, of which the first is read: stride 4."""
    cfg = tiny_pose(deconv_out_channels=None, deconv_kernel_sizes=None)
    stage = dict(num_modules=1, num_branches=1, block='BASIC', num_blocks=(1,), num_channels=(8,))
    later = dict(num_modules=1, num_branches=2, block='BASIC', num_blocks=(1, 1), num_channels=(channels, 2 * channels))
    stages = dict(
        stage1=dict(stage), stage2=later, stage3=dict(later, num_branches=3), stage4=dict(later, num_branches=4)
    )
    for number in (3, 4):
        stages[f'stage{number}'].update(num_blocks=(1,) * number, num_channels=[channels * 2**i for i in range(number)])
    cfg['backbone'] = dict(type='HRNet', in_channels=3, extra=stages)
    cfg['head']['in_channels'] = channels
    return build_model(cfg)


def batch_for(model, training=True, **kwargs):
    return model_inputs(model, pose_batch(model.head.decoder, **kwargs), training)


def keypoints(samples):
    return np.concatenate([sample.pred_instances.keypoints for sample in samples])


def scores(samples):
    return np.concatenate([sample.pred_instances.keypoint_scores for sample in samples])


@pytest.mark.parametrize('head, default', [('heatmaps', 'mse'), ('coordinates', 'softmax')])
def test_what_it_serves(head, default):
    adapter = build_adapter(estimator(head))
    assert (adapter.task, adapter.main_metric, adapter.default_tau) == ('pose', 'coco/AP', 1.0)
    assert adapter.num_classes == NUM_KEYPOINTS and not adapter.has_boxes and not adapter.sigmoid
    assert adapter.output_loss == default and not adapter.declares_padding


@pytest.mark.parametrize(
    'model, at, expected',
    [
        (lambda: estimator(), 'backbone', (32, 32)),
        (lambda: estimator(), 'penultimate', (4, 4)),
        (lambda: estimator('coordinates'), 'backbone', (32, 32)),
        (lambda: estimator('coordinates'), 'penultimate', (32, 32)),
        (lambda: simcc(), 'penultimate', (4, 16)),
        (lambda: simcc(0), 'penultimate', (32, 32)),
        (lambda: hrnet(), 'backbone', (4, 4)),
        (lambda: hrnet(), 'penultimate', (4, 4)),
    ],
    ids=['heatmaps', 'heatmaps u', 'rtmcc', 'rtmcc u', 'simcc u', 'simcc without deconvolutions u', 'hrnet', 'hrnet u'],
)
def test_channels_and_strides_at_the_size_of_the_codec(model, at, expected):
    adapter = build_adapter(model(), at)
    assert adapter.dry_shape == (96, 64) and adapter.dry_size == 64
    assert [(level.channels, level.stride) for level in adapter.levels(adapter.dry_feats)] == [expected]


def test_of_several_maps_the_head_reads_the_last():
    cfg = tiny_pose(width=4)
    cfg['backbone']['out_indices'] = (1, 3)
    adapter = build_adapter(build_model(cfg))
    feats = tuple(torch.full((2, 1, 3, 2), float(level)) for level in range(2))
    assert [f.mean().item() for f in adapter.features(feats)] == [1] and adapter.positions(feats) == (1,)
    assert [f.mean().item() for f in adapter.replace(feats, {0: feats[1] + 10})] == [0, 11]


def test_layout_names_the_codec():
    assert build_adapter(estimator()).dry_run()[1] == {
        'outputs': 'heatmaps',
        'keypoints': 3,
        'sizes': [(24, 16)],
        'codec': 'MSRAHeatmap(heatmap_size=[16, 24], input_size=[64, 96], sigma=2, unbiased=False)',
    }
    layout = build_adapter(estimator('coordinates')).dry_run()[1]
    assert layout['sizes'] == [(128,), (192,)] and 'sigma=[4.9, 5.66]' in layout['codec']
    adapter = build_adapter(estimator())
    assert adapter.layout(adapter.dry_feats, [2, 0])['keypoints'] == 2


def test_outputs_that_are_no_maps_of_keypoints():
    head = dict(type='RLEHead', loss=dict(type='RLELoss', use_target_weight=True), num_joints=3)
    cfg = tiny_pose()
    cfg['neck'] = dict(type='GlobalAveragePooling')
    cfg['head'] = dict(head, in_channels=64, decoder=dict(type='RegressionLabel', input_size=(64, 96)))
    adapter = build_adapter(build_model(cfg))
    assert adapter.dry_run()[1] == {'dense head': 'none (RLEHead: neither heatmaps nor coordinates)'}
    assert adapter.num_classes == 3 and adapter.blend_obstacle and len(adapter.levels(adapter.dry_feats)) == 1
    with pytest.raises(ValueError, match="the RLEHead of this TopdownPoseEstimator does not.*Use at='backbone'"):
        build_adapter(adapter.model, 'penultimate').dry_run()


def test_rows_of_logits_are_joints():
    adapter = build_adapter(estimator())
    heatmaps = torch.randn(2, 3, 5, 4)
    (rows,) = adapter.logits(heatmaps)
    assert torch.equal(rows[1 * 3 + 2], heatmaps[1, 2].flatten()) and adapter.logit_maps(heatmaps)[0] is heatmaps
    assert adapter.logit_strides() == [4]


def test_logits_of_coordinates_are_those_that_the_loss_takes_the_softmax_of():
    adapter = build_adapter(estimator('coordinates'))
    outputs = torch.randn(2, 3, 128), torch.randn(2, 3, 192)
    x, y = adapter.logits(outputs)
    assert torch.equal(x[1 * 3 + 2], 10 * outputs[0][1, 2]) and y.shape == (6, 192) and adapter.sums_outputs
    assert [maps.shape for maps in adapter.logit_maps(outputs)] == [(2, 3, 1, 128), (2, 3, 1, 192)]
    assert build_adapter(simcc()).beta == 1


def test_some_of_the_keypoints_as_another_model_numbers_them():
    adapter = build_adapter(estimator('coordinates'))
    outputs = torch.randn(2, 3, 128), torch.randn(2, 3, 192)
    found = adapter.select_classes(outputs, [2, 0])
    assert isinstance(found, tuple) and torch.equal(found[1], outputs[1][:, [2, 0]])
    assert torch.equal(adapter.select_classes(outputs[0], [1]), outputs[0][:, [1]])


def test_names_and_mirrors_of_keypoints():
    meta = dict(keypoint_id2name={1: 'right', 0: 'left', 2: 'nose'}, flip_indices=[1, 0, 2], CLASSES=[dict(id=1)])
    assert names_in(meta) == ('left', 'right', 'nose') and names_in({}) is None
    assert names_in(dict(CLASSES=['a', 'b'])) == ('a', 'b') and names_in(dict(classes='a.txt')) is None
    assert mirror_gap(meta, dict(meta, flip_indices=np.array([1, 0, 2]).tolist())) is None
    assert mirror_gap(meta, {}) is None
    gap = mirror_gap(meta, dict(meta, flip_indices=[0, 1, 2]))
    assert gap == 'flip_indices, the keypoints in the mirror, are [1, 0, 2] here and [0, 1, 2] there'


@pytest.mark.parametrize('at', PLACES)
@pytest.mark.parametrize('model', [estimator, lambda: estimator('coordinates'), simcc, hrnet], ids=['', 'c', 's', 'h'])
def test_task_loss_is_that_of_the_plain_model(model, at):
    model = model().train()
    adapter = build_adapter(model, at)
    inputs, samples = batch_for(model)
    state = copy.deepcopy(model.state_dict())
    expected = model(inputs, copy.deepcopy(samples), mode='loss')
    after = copy.deepcopy(model.state_dict())
    model.load_state_dict(state)
    losses, outputs = adapter.task_loss(adapter.extract(inputs), inputs, samples)
    assert losses.keys() == expected.keys() >= {'loss_kpt', 'acc_pose'}
    assert all(torch.equal(torch.as_tensor(losses[k]), torch.as_tensor(expected[k])) for k in expected)
    assert all(torch.equal(v, after[k]) for k, v in model.state_dict().items()), 'norms saw other batches'
    targets, visible = adapter.targets(samples), adapter.visibility(samples)
    assert visible.tolist() == [[1, 1, 0], [1, 1, 1]]
    if adapter.kind == 'heatmaps':
        squares = (visible[..., None, None] * (outputs - targets)).square().mean()
        assert losses['loss_kpt'].item() == pytest.approx(squares.item(), rel=1e-5)
    else:
        assert [t.shape for t in targets] == [z.shape for z in outputs] == [(2, 3, 128), (2, 3, 192)]


@pytest.mark.parametrize('at', PLACES)
@pytest.mark.parametrize('head', HEADS)
def test_predicts_from_given_features(head, at):
    model = estimator(head).eval()
    adapter = build_adapter(model, at)
    inputs, samples = batch_for(model, training=False)
    with torch.no_grad():
        expected = model(inputs, copy.deepcopy(samples), mode='predict')
        feats = adapter.extract(inputs)
        same = adapter.predict(feats, inputs, copy.deepcopy(samples))
        other = adapter.replace(feats, {0: adapter.features(feats)[0].flip(-1).flip(-2) * 3 + 1})
        changed = adapter.predict(other, inputs, copy.deepcopy(samples))
    assert np.array_equal(keypoints(same), keypoints(expected)) and np.array_equal(scores(same), scores(expected))
    assert not np.allclose(scores(changed), scores(expected))


@pytest.mark.parametrize('at', PLACES)
@pytest.mark.parametrize('head', HEADS)
def test_mirror_images_have_features_of_their_own(head, at):
    model = estimator(head, flips=True).eval()
    adapter = build_adapter(model, at)
    inputs, samples = batch_for(model, training=False)

    def altered(images):
        feats = adapter.extract(images)
        return adapter.replace(feats, {0: adapter.features(feats)[0].flip(1)})

    with torch.no_grad():
        expected = model(inputs, copy.deepcopy(samples), mode='predict')
        same = adapter.predict_through(adapter.extract, inputs, copy.deepcopy(samples))
        found = adapter.predict_through(altered, inputs, copy.deepcopy(samples))
        with pytest.raises(ValueError, match='not those of its mirror image'):
            adapter.predict(adapter.extract(inputs), inputs, samples)
        own, mirrored = (adapter.head_outputs(altered(images)) for images in (inputs, inputs.flip(-1)))
    assert np.array_equal(keypoints(same), keypoints(expected)) and np.array_equal(scores(same), scores(expected))
    if head == 'heatmaps':
        back = mirrored.flip(-1)[:, MIRROR]
        back[..., 1:] = back[..., :-1].clone()
        by_hand = [(own + back) / 2]
    else:
        by_hand = [(own[0] + mirrored[0].flip(-1)[:, MIRROR]) / 2, (own[1] + mirrored[1][:, MIRROR]) / 2]
    highest = torch.stack([part.flatten(2).amax(2) for part in by_hand]).amin(0)  # of SimCC the lower of both axes
    assert np.allclose(scores(found), highest.numpy(), atol=1e-6) and not np.allclose(scores(found), scores(expected))
    assert 'flip_test=False' in adapter.blend_obstacle


@pytest.mark.parametrize('head', HEADS)
def test_blend_mixes_outputs(head):
    model = estimator(head).eval()
    adapter = build_adapter(model)
    assert adapter.blend_obstacle is None
    inputs, samples = batch_for(model, training=False)
    with torch.no_grad():
        outputs = adapter.head_outputs(adapter.extract(inputs))
        expected = model(inputs, copy.deepcopy(samples), mode='predict')
        tripled = 3 * outputs if head == 'heatmaps' else tuple(3 * part for part in outputs)
        found = adapter.blend(outputs, tripled, 0.5, copy.deepcopy(samples))
    assert np.array_equal(keypoints(found), keypoints(expected))
    assert np.allclose(scores(found), 2 * scores(expected), rtol=1e-5)  # (z + 3 z) / 2


@pytest.mark.parametrize('at', PLACES)
@pytest.mark.parametrize('head', HEADS)
def test_judging_gives_gradients_and_no_accuracy(head, at):
    model = estimator(head).eval().requires_grad_(False)
    adapter = build_adapter(model, at)
    inputs, samples = batch_for(model)
    state = copy.deepcopy(model.state_dict())
    feats = adapter.extract(inputs)
    estimate = adapter.features(feats)[0].clone().requires_grad_()
    losses, outputs = adapter.judge(adapter.replace(feats, {0: estimate}), inputs, samples)
    assert set(losses) == {'loss_kpt'}
    expected, _ = adapter.task_loss(feats, inputs, samples)
    assert losses['loss_kpt'].item() == pytest.approx(expected['loss_kpt'].item(), rel=1e-6)
    losses['loss_kpt'].backward()
    assert estimate.grad.abs().sum() > 0
    parts = (
        [(outputs, adapter.head_outputs(feats))] if head == 'heatmaps' else zip(outputs, adapter.head_outputs(feats))
    )
    assert all(torch.equal(*pair) for pair in parts)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert not any(module.training for module in model.modules()) and 'compute_acc' not in model.train_cfg


def test_targets_of_another_codec_are_named():
    own, same = (build_adapter(estimator(width=width)) for width in (4, 6))
    other = build_adapter(
        estimator(
            decoder=dict(type='MSRAHeatmap', input_size=(64, 96), heatmap_size=(16, 24), sigma=3, blur_kernel_size=17)
        )
    )
    assert own.target_gap(same) is None
    assert 'sigma=2, unbiased=False), the teacher heatmaps of MSRAHeatmap' in other.target_gap(own)
    assert 'sigma=3' in other.target_gap(own)
    assert 'learns coordinates' in own.target_gap(build_adapter(estimator('coordinates')))
    reading = dict(type='MSRAHeatmap', input_size=[64, 96], heatmap_size=(16, 24), sigma=2.0, blur_kernel_size=17)
    assert own.target_gap(build_adapter(estimator(decoder=reading))) is None, 'it only reads outputs otherwise'


def test_the_penultimate_feature_is_what_the_last_convolution_reads():
    model = estimator().eval()
    adapter = build_adapter(model, 'penultimate')
    inputs, _ = batch_for(model, training=False)
    with torch.no_grad():
        feats = adapter.extract(inputs)
        (u,) = adapter.features(feats)
        assert u.shape == (2, 4, 24, 16)
        assert torch.equal(u, model.head.conv_layers(model.head.deconv_layers(feats['body'][-1])))
        assert torch.equal(adapter.head_outputs(feats), model.head.final_layer(u))
    assert adapter.dry_run()[1] == build_adapter(model).dry_run()[1]


def test_the_size_of_the_file_is_no_border_of_the_crop():
    """Padding is not filled: all of the input is image, though the file was smaller."""
    from mmrkd.models.input_converter import InputConverter

    def preprocessor(mean):
        return SimpleNamespace(mean=torch.full((3, 1, 1), mean), std=torch.ones(3, 1, 1), _enable_normalize=True)

    model = estimator()
    _, samples = batch_for(model)
    zeros = torch.zeros(2, 3, 96, 64)
    convert = InputConverter(preprocessor(3.0), preprocessor(1.0), padded=build_adapter(model).declares_padding)
    assert torch.equal(convert(zeros, samples), torch.full_like(zeros, 2.0))
    assert (InputConverter(preprocessor(3.0), preprocessor(1.0))(zeros, samples)[..., 30:, 30:] == 0).all()


def test_an_input_size_of_the_teachers_own_is_what_it_decodes_by():
    from mmrkd.models.input_converter import InputConverter

    model = estimator()
    inputs, samples = batch_for(model)
    preprocessors = model.data_preprocessor, model.data_preprocessor
    converted, told = InputConverter(*preprocessors, (48, 32), padded=False).convert(inputs, samples)
    assert converted.shape[2:] == (48, 32) and [sample.input_size for sample in told] == [(32, 48)] * 2
    assert samples[0].input_size == (64, 96) and F.interpolate(inputs, (48, 32)).shape == converted.shape
