"""OnlineEnsemble on segmentors: terms compared with plain code, branches that are plain models, state that resumes."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from mmrkd.models import Progress
from mmrkd.models.losses import consistency_ramp
from mmrkd.testing import (
    NUM_CLASSES,
    build_distiller,
    build_model,
    model_inputs,
    segmentation_batch,
    tiny_classifier,
    tiny_segmentor,
)

pytest.importorskip('mmseg', reason='the extra `segmentation` is not installed')
NAME = 'onlineensemble'
PLACES = ('backbone', 'penultimate')


def student_cfg(**changes):
    cfg = tiny_segmentor(**dict(dict(dropout_ratio=0.0), **changes))
    cfg['auxiliary_head']['dropout_ratio'] = 0.0
    return cfg


def build(student=None, at='backbone', seed=3, **method):
    method = dict(dict(type='mmrkd.OnlineEnsemble', split='layer4', squeeze=8), **method)
    return build_distiller(student or student_cfg(), None, [method], seed=seed, at=at).train()


def losses_of(distiller, **batch):
    inputs, samples = model_inputs(distiller, segmentation_batch(**batch))
    return distiller(inputs, copy.deepcopy(samples), mode='loss'), inputs, samples


def whole_branches(distiller):
    """Each branch as a plain model of the student's config, branch 1 first."""
    models = []
    for name in ('student', 'branch_2', 'branch_3'):
        model = build_model(student_cfg())
        model.load_state_dict(copy.deepcopy(distiller.variants[name].weights()), strict=True)
        models.append(model.train())
    return models


def mixture_of(distiller, models, inputs):
    """E and the logits of all branches, as plain code gives them."""
    logits = [model.decode_head(model.extract_feat(inputs)) for model in models]
    trunk = models[0].backbone
    x = trunk.maxpool(trunk.relu(trunk.norm1(trunk.conv1(inputs))))
    for name in ('layer1', 'layer2', 'layer3'):
        x = getattr(trunk, name)(x)
    unit = distiller.methods[0].unit
    pooled = sum(conv(x) for conv in unit.convs).mean((2, 3))
    shares = unit.score(unit.squeeze(pooled)).reshape(-1, 3, NUM_CLASSES).softmax(1)
    return sum(shares[:, b, :, None, None] * logits[b] for b in range(3)), logits


def entropy(logits, labels):
    logits = F.interpolate(logits, labels.shape[1:], mode='bilinear', align_corners=False)
    return F.cross_entropy(logits, labels, ignore_index=255, reduction='none').mean()


@pytest.mark.parametrize('at', PLACES)
def test_terms(at):
    distiller = build(at=at, w_kd=2.0, w_ensemble=0.5)
    distiller.methods[0].progress = Progress(15.0, 0.1, 15, 150)
    models = whole_branches(distiller)
    losses, inputs, samples = losses_of(distiller)
    labels = torch.cat([sample.gt_sem_seg.data for sample in samples])
    mixture, logits = mixture_of(distiller, models, inputs)
    others = [model(inputs, copy.deepcopy(samples), mode='loss') for model in whole_branches(distiller)[1:]]
    tasks = sum(own['decode.loss_ce'] + own['aux.loss_ce'] for own in others)
    p = mixture.log_softmax(1)
    divergences = sum((p.exp() * (p - z.log_softmax(1))).sum(1).mean() for z in logits)
    assert losses['decode.loss_ce'].item() == pytest.approx(entropy(logits[0], labels).item(), rel=1e-5)
    assert losses[f'{NAME}.loss_branches'].item() == pytest.approx(tasks.item(), rel=1e-5)
    assert losses[f'{NAME}.loss_ensemble'].item() == pytest.approx(0.5 * entropy(mixture, labels).item(), rel=1e-5)
    expected = 2 * consistency_ramp(0.1, 0.4) * divergences.item()
    assert losses[f'{NAME}.loss_kd'].item() == pytest.approx(expected, rel=1e-3)


def test_the_trunk_runs_once_and_belongs_to_the_student():
    distiller, calls = build(), []
    distiller.student.backbone.layer1.register_forward_hook(lambda *_: calls.append(1))
    losses_of(distiller)
    assert len(calls) == 1
    names = [name for name in distiller.state_dict() if name.startswith(f'methods.{NAME}.branches')]
    assert {name.split('.')[6] for name in names if '.backbone.' in name} == {'layer4'}
    plain = build_model(student_cfg())
    plain.load_state_dict(
        {k: v for k, v in distiller.state_dict().items() if not k.startswith('methods.')}, strict=True
    )


def test_branches_differ_and_the_student_starts_as_it_would_alone():
    distiller, plain = build(), build_model(student_cfg(), seed=3)
    assert all(torch.equal(v, distiller.state_dict()[k]) for k, v in plain.state_dict().items())
    first, second = distiller.methods[0].branches.models
    assert not torch.equal(first.decode_head.conv_seg.weight, second.decode_head.conv_seg.weight)


def test_branches_may_start_from_the_backbone_of_the_student():
    distiller = build(init='student')
    own = distiller.student.state_dict()
    for model in distiller.methods[0].branches.models:
        state = model.state_dict()
        assert any(name.startswith('backbone.layer4') for name in state)
        for name, value in state.items():
            if name.endswith('conv1.weight'):
                assert torch.equal(value, own[name])
        assert not torch.equal(state['decode_head.conv_seg.weight'], own['decode_head.conv_seg.weight'])


def gradient_of(distiller, term, parameter):
    losses = losses_of(distiller)[0]
    return torch.autograd.grad(losses[f'{NAME}.{term}'], parameter, allow_unused=True)[0]


class TestGradients:
    def test_all_branches_pull_at_the_trunk(self):
        distiller = build()
        trunk = distiller.student.backbone.conv1.weight
        for term in ('loss_branches', 'loss_ensemble', 'loss_kd'):
            assert gradient_of(distiller, term, trunk).abs().sum() > 0, term

    def test_a_target_that_is_not_detached_trains_the_unit(self):
        distiller = build()
        weight = distiller.methods[0].unit.score.weight
        assert gradient_of(distiller, 'loss_kd', weight).abs().sum() > 0
        assert gradient_of(distiller, 'loss_ensemble', weight).abs().sum() > 0

    def test_one_that_is_does_not(self):
        distiller = build(detach_target=True)
        weight = distiller.methods[0].unit.score.weight
        assert gradient_of(distiller, 'loss_kd', weight) is None
        assert gradient_of(distiller, 'loss_ensemble', weight).abs().sum() > 0

    @pytest.mark.parametrize('method', [dict(), dict(detach_target=True), dict(w_ensemble=0), dict(w_kd=0)])
    def test_each_parameter_has_one(self, method):
        """DDP would wait for it."""
        self.check(build(**method), idle=0)

    def test_what_has_none_is_named(self):
        distiller = build(detach_target=True, w_ensemble=0)
        self.check(distiller, idle=len(list(distiller.methods[0].unit.parameters())))

    @staticmethod
    def check(distiller, idle):
        distiller.parse_losses(losses_of(distiller)[0])[0].backward()
        missing = {id(p) for p in distiller.parameters() if p.requires_grad and p.grad is None}
        named = {id(p) for method in distiller.methods.values() for p in method.idle_parameters()}
        assert missing == named and len(named) == idle


class TestRamp:
    @pytest.mark.parametrize(
        'ramp, progress, factor',
        [
            (60, Progress(15.0, 0.1), 0.060055),
            (60, Progress(60.0, 0.4), 1),
            (None, Progress(15.0, 0.1), 0.060055),
            (None, Progress(1.0, 0.4), 1),
            (0, Progress(0.0, 0.0), 1),
            (60, None, 1),
        ],
    )
    def test_factor(self, ramp, progress, factor):
        method = build(ramp=ramp).methods[0]
        method.progress = progress
        assert method.ramp_now == pytest.approx(factor, abs=1e-6)

    def test_what_counts_epochs_must_be_there(self):
        assert build().methods[0].needed_hooks == ('PhaseHook',) and build(ramp=0).methods[0].needed_hooks == ()


class TestVariants:
    def test_what_it_predicts_as(self):
        assert tuple(build().variants) == ('student', 'branch_2', 'branch_3', 'ensemble')

    @pytest.mark.parametrize('at', PLACES)
    def test_the_mixture_predicts(self, at):
        distiller = build(at=at).eval()
        models = [model.eval() for model in whole_branches(distiller)]
        inputs, samples = model_inputs(distiller, segmentation_batch(), training=False)
        with torch.no_grad():
            mixture, _ = mixture_of(distiller, models, inputs)
            expected = F.interpolate(mixture, (64, 64), mode='bilinear', align_corners=False)
        distiller.set_variant('ensemble')
        found = distiller(inputs, copy.deepcopy(samples), mode='predict')
        assert torch.allclose(torch.stack([s.seg_logits.data for s in found]), expected, atol=1e-5)

    @pytest.mark.parametrize('index', [2, 3])
    def test_a_branch_is_a_plain_model(self, index):
        distiller = build().eval()
        variant = distiller.variants[f'branch_{index}']
        inputs, samples = model_inputs(distiller, segmentation_batch(), training=False)
        found = variant.predict(inputs, copy.deepcopy(samples))
        with torch.no_grad():
            expected = variant.build()(inputs, copy.deepcopy(samples), mode='predict')
        for own, other in zip(found, expected):
            assert torch.allclose(own.seg_logits.data, other.seg_logits.data, atol=1e-5)

    def test_there_is_no_mixture_of_windows(self):
        cfg = student_cfg()
        cfg['test_cfg'] = dict(mode='slide', crop_size=(64, 64), stride=(32, 32))
        distiller = build(cfg)
        assert tuple(distiller.variants) == ('student', 'branch_2', 'branch_3')
        with pytest.raises(ValueError, match="no variant 'ensemble'.*test_cfg=dict"):
            distiller.set_variant('ensemble')


def trained(distiller, steps, optimizer=None):
    optimizer = optimizer or torch.optim.Adam(distiller.parameters(), 1e-3)
    for step in steps:
        distiller.parse_losses(losses_of(distiller, seed=step)[0])[0].backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def test_its_state_resumes():
    whole, first = build(), build()
    trained(whole, range(4))
    optimizer = trained(first, range(2))
    again = build(seed=8)
    again.load_state_dict(copy.deepcopy(first.state_dict()))
    other = torch.optim.Adam(again.parameters(), 1e-3)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    trained(again, range(2, 4), other)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole.state_dict().items())


def test_without_a_weight_it_is_off_bit_for_bit():
    distiller, plain = build(w_kd=0, w_ensemble=0), build_model(student_cfg(), seed=3).train()
    inputs, samples = model_inputs(plain, segmentation_batch())
    expected = plain(inputs, copy.deepcopy(samples), mode='loss')
    found = distiller(inputs, samples, mode='loss')
    assert {name: value.item() for name, value in found.items()} == {k: v.item() for k, v in expected.items()}


class TestRefused:
    def test_models_without_maps(self):
        with pytest.raises(ValueError, match='OnlineEnsemble mixes the maps .* ImageClassifier predicts no one map'):
            build_distiller(tiny_classifier(), None, [dict(type='mmrkd.OnlineEnsemble')])

    def test_branches_without_a_trunk(self):
        with pytest.raises(ValueError, match="split='input' leaves none of it"):
            build(split='input')

    @pytest.mark.parametrize(
        'method', [dict(num_branches=1), dict(init='teacher'), dict(w_kd=-1.0), dict(ramp=-1.0), dict(norm='LN')]
    )
    def test_arguments(self, method):
        with pytest.raises((ValueError, TypeError)):
            build(**method)


def test_other_trunks_and_heads():
    """The default cut of a dilated backbone is where it halves the resolution for the last time."""
    distiller = build(
        student_cfg(head='ASPPHead', dilations=(1, 2)), split=None, num_branches=2, norm='GN', kernels=(3,)
    )
    method = distiller.methods[0]
    assert method.student_taps == ('backbone.layer1',) and method.unit.convs[0][0].in_channels == 8
    losses = losses_of(distiller)[0]
    assert all(torch.isfinite(value).all() for value in losses.values() if isinstance(value, torch.Tensor))
    assert partial(distiller.set_variant, 'ensemble')() is None


@pytest.fixture
def predicting_heatmaps(monkeypatch):
    """The logits of segmentors taken for heatmaps of joints, two stacks of them, of which some are invisible."""
    from mmrkd.adapters.segmentation import SegmentationAdapter

    heatmaps, visible = torch.rand(2, NUM_CLASSES, 8, 8), torch.tensor([[1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 1.0]])
    monkeypatch.setattr(SegmentationAdapter, 'output_loss', 'mse')
    monkeypatch.setattr(SegmentationAdapter, 'logit_maps', lambda self, outputs: [outputs / 2, outputs])
    monkeypatch.setattr(SegmentationAdapter, 'logit_strides', lambda self: [8, 8])
    monkeypatch.setattr(SegmentationAdapter, 'layout', lambda self, feats, index=None: {})
    monkeypatch.setattr(SegmentationAdapter, 'targets', lambda self, samples: heatmaps)
    monkeypatch.setattr(SegmentationAdapter, 'visibility', lambda self, samples: visible)
    return heatmaps, visible


def test_heatmaps_of_several_stacks(predicting_heatmaps):
    """The last stacks are mixed, and all of them learn from the mixture."""
    heatmaps, visible = predicting_heatmaps
    distiller = build()
    method = distiller.methods[0]
    assert method.heatmaps and method.w_kd == 2
    models = whole_branches(distiller)
    losses, inputs, _ = losses_of(distiller)
    mixture, maps = mixture_of(distiller, models, inputs)
    v = visible[:, :, None, None]
    expected = 0.5 * (v * mixture - v * heatmaps).square().mean()
    assert losses[f'{NAME}.loss_ensemble'].item() == pytest.approx(expected.item(), rel=1e-5)
    p, expected = (v * mixture).flatten(2).softmax(2), 0
    for own in [stack for last in maps for stack in (last / 2, last)]:
        q = (v * own).flatten(2).softmax(2)
        expected += (p * (p / q).log()).sum().item() / (2 * 64)
    assert losses[f'{NAME}.loss_kd'].item() == pytest.approx(2 * expected, rel=1e-2)
