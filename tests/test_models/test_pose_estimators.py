"""Methods on a pair of pose estimators: terms compared with independent formulas, wherever the features lie."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmrkd.models.methods import Progress
from mmrkd.models.methods.dwpose import fading_factor
from mmrkd.models.teacher import FrozenTeacher
from mmrkd.testing import build_distiller, build_model, model_inputs, pose_batch, save_random_teacher, tiny_pose

pytest.importorskip('mmpose', reason='the extra `pose` is not installed')
PLACES = ('backbone', 'penultimate')
HEADS = ('heatmaps', 'coordinates')
FLIPS = dict(flip_test=True, flip_mode='heatmap', shift_heatmap=True)


@pytest.fixture(scope='module')
def teachers(tmp_path_factory):
    """Wider than the student, of both heads, seen at both places; logits that differ from joint to joint."""
    found = {}
    for head in HEADS:
        source = save_random_teacher(tiny_pose(head, width=12), tmp_path_factory.mktemp(head), seed=5)
        found.update({(head, at): FrozenTeacher(**source, at=at) for at in PLACES})
    return found


def distiller_with(teacher, *methods, student=None, **kwargs):
    methods = [dict(method, type=f'mmrkd.{method["type"]}') for method in methods]
    head = 'heatmaps' if teacher.adapter.kind == 'heatmaps' else 'coordinates'
    student = student or tiny_pose(head, width=8)
    return build_distiller(student, teacher, methods, at=teacher.adapter.at, **kwargs).train()


def data_of(distiller, training=True, **batch):
    return model_inputs(distiller, pose_batch(distiller.student.head.decoder, **batch), training)


def losses_of(distiller, **batch):
    inputs, samples = data_of(distiller, **batch)
    return distiller(inputs, samples, mode='loss'), inputs, samples


def by_hand(distiller, inputs):
    """Last maps and outputs of both models, as plain code of the library gives them for this batch."""
    student, teacher = distiller.student, distiller.teacher.model
    with torch.no_grad():
        own, others = student.extract_feat(inputs), teacher.extract_feat(inputs)
        return own[-1], others[-1], student.head.forward(own), teacher.head.forward(others)


def test_heatmaps_are_compared_by_their_squared_error_where_joints_are_visible(teachers):
    distiller = distiller_with(teachers['heatmaps', 'backbone'], dict(type='KD', w_task=0.5, w_kd=2.0))
    losses, inputs, samples = losses_of(distiller)
    *_, own, other = by_hand(distiller, inputs)
    visible = torch.tensor([[1.0, 1, 0], [1, 1, 1]])[..., None, None]
    expected = 2 * (visible * own - visible * other).square().mean() / 2
    assert losses['kd.loss_kd'].item() == pytest.approx(expected.item(), rel=1e-4)
    targets = torch.stack([sample.gt_fields.heatmaps for sample in samples])
    task = (visible * own - visible * targets).square().mean()
    assert losses['loss_kpt'].item() == pytest.approx(0.5 * task.item(), rel=1e-4)


def test_coordinates_are_compared_by_a_softmax_over_the_bins_of_each_axis(teachers):
    distiller = distiller_with(teachers['coordinates', 'backbone'], dict(type='KD', tau=2.0))
    losses, inputs, _ = losses_of(distiller)
    *_, own, other = by_hand(distiller, inputs)
    expected = 0
    for z_s, z_t in zip(own, other):
        p, q = (10 * z_t / 2).softmax(2), (10 * z_s / 2).softmax(2)
        expected += 4 * (p * (p / q).log()).sum(2).mean()
    assert losses['kd.loss_kd'].item() == pytest.approx(expected.item(), rel=1e-3)


def test_where_each_channel_of_the_heatmaps_looks(teachers):
    distiller = distiller_with(teachers['heatmaps', 'backbone'], dict(type='CWD', on='logits', tau=0.1, w_cwd=3.0))
    losses, inputs, _ = losses_of(distiller)
    *_, own, other = by_hand(distiller, inputs)
    p, q = ((z.flatten(2) / 0.1).softmax(2) for z in (other, own))
    expected = 3 * 0.01 * (p * (p / q).log()).sum() / (2 * 3)
    assert losses['cwd.loss_cwd'].item() == pytest.approx(expected.item(), rel=1e-3)


def test_hint_on_the_last_map(teachers):
    distiller = distiller_with(teachers['heatmaps', 'backbone'], dict(type='FitNets', standardize=False))
    losses, inputs, _ = losses_of(distiller)
    own, other, *_ = by_hand(distiller, inputs)
    expected = F.mse_loss(distiller.methods['fitnets'].projection((own,))[0], other)
    assert losses['fitnets.loss_feat'].item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize('at', PLACES)
@pytest.mark.parametrize('head', HEADS)
def test_the_head_of_the_teacher_judges_the_estimate(teachers, head, at):
    teacher = teachers[head, at]
    distiller = distiller_with(teacher, dict(type='ERA', num_branches=1, w_twi=2.0, w_kd=0.0, twi_on='last'))
    before, era = teacher.fingerprint(), distiller.methods['era']
    losses, inputs, samples = losses_of(distiller)
    with torch.no_grad():
        (estimate,) = era.neck(distiller.pair.student_feats(distiller.adapter.extract(inputs)))
        model = teacher.model
        deconvolved = head == 'heatmaps' and at == 'penultimate'
        outputs = model.head.final_layer(estimate) if deconvolved else model.head.forward((estimate,))
        adapter = distiller.adapter
        expected = model.head.loss_module(outputs, adapter.targets(samples), adapter.visibility(samples))
    assert losses['era.loss_twi_1'].item() == pytest.approx(2 * expected.item(), rel=1e-3)
    sum(value for name, value in losses.items() if name.startswith('era.')).backward()
    assert distiller.student.backbone.conv1.weight.grad.abs().sum() > 0
    assert teacher.fingerprint() == before


@pytest.mark.parametrize('head, feat, kd', [('heatmaps', 0.002, 1.0), ('coordinates', 0.3, 0.2)])
def test_weights_of_features_are_in_the_scale_of_the_task(teachers, head, feat, kd):
    era = distiller_with(teachers[head, 'backbone'], dict(type='ERA')).methods['era']
    assert (era.w_feat, era.w_res, era.w_kd, era.w_twi) == (feat, feat, kd, 2.0)


METHODS = {
    'KD': {},
    'CWD': {},
    'AttentionTransfer': {},
    'FitNets': {},
    'DeepMutualLearning': {},
    'SemiOnlineKD': {},
    'ERA': {},
    'DWPose': {},
}
PAIRS = [(head, method) for head in HEADS for method in METHODS if (head, method) != ('heatmaps', 'DWPose')]


@pytest.mark.parametrize('at', PLACES)
@pytest.mark.parametrize('head, method', PAIRS)
def test_methods_train_and_predict(teachers, head, method, at):
    distiller = distiller_with(teachers[head, at], dict(type=method, **METHODS[method]))
    losses, inputs, samples = losses_of(distiller)
    own = {name: value for name, value in losses.items() if name.startswith(f'{method.lower()}.loss')}
    assert own and all(torch.isfinite(value) for value in own.values())
    sum(own.values()).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in distiller.student.parameters())
    distiller.eval()
    for variant in distiller.variants:
        distiller.set_variant(variant)
        found = distiller(inputs, copy.deepcopy(samples), mode='predict')
        assert [sample.pred_instances.keypoints.shape for sample in found] == [(1, 3, 2)] * 2


def test_branches_of_one_student_teach_each_other_by_their_heatmaps():
    """OKDHP: the terms are those of plain models on this batch, and the mixture predicts."""
    distiller = build_distiller(tiny_pose(), None, [dict(type='mmrkd.OnlineEnsemble')], seed=1).train()
    losses, inputs, samples = losses_of(distiller)
    method, student = distiller.methods['onlineensemble'], distiller.student
    trunk = []
    handle = student.get_submodule(method.student_taps[-1]).register_forward_hook(lambda *call: trunk.append(call[2]))
    models = [student, build_model(tiny_pose()), build_model(tiny_pose())]
    for index, model in enumerate(models[1:]):
        model.train().load_state_dict(method.branches.branch(index).whole_state())
    with torch.no_grad():
        maps = torch.stack([model.head.forward(model.extract_feat(inputs)) for model in models], dim=1)
        mixture = (method.unit(trunk[0]).softmax(dim=1)[..., None, None] * maps).sum(dim=1)
    handle.remove()
    truth = torch.stack([sample.gt_fields.heatmaps for sample in samples])
    seen = torch.cat([sample.gt_instance_labels.keypoint_weights for sample in samples])[..., None, None]
    ensemble = (seen * (mixture - truth)).square().mean() / 2
    torch.testing.assert_close(losses['onlineensemble.loss_ensemble'].detach(), ensemble, rtol=1e-4, atol=1e-6)
    log_p = (seen * mixture).flatten(2).log_softmax(dim=2)
    log_q = (seen[:, None] * maps).flatten(3).log_softmax(dim=3)
    divergence = (log_p.exp()[:, None] * (log_p[:, None] - log_q)).sum() / (len(inputs) * log_p.shape[2])
    torch.testing.assert_close(losses['onlineensemble.loss_kd'].detach(), 2 * divergence, rtol=1e-3, atol=1e-6)
    distiller.eval()
    inputs, samples = data_of(distiller, training=False)
    assert set(distiller.variants) == {'student', 'branch_2', 'branch_3', 'ensemble'}
    for variant in distiller.variants.values():
        assert variant.predict(inputs, samples)[0].pred_instances.keypoints.shape == (1, 3, 2)


def test_what_is_no_heatmap_is_not_mixed():
    with pytest.raises(ValueError, match='mixes the maps that branches predict, but TopdownPoseEstimator predicts no'):
        build_distiller(tiny_pose('coordinates'), None, [dict(type='mmrkd.OnlineEnsemble')])


@pytest.mark.parametrize('at', PLACES)
@pytest.mark.parametrize('head', HEADS)
def test_without_a_weight_nothing_changes(teachers, head, at):
    distiller = distiller_with(teachers[head, at], dict(type='ERA', w_kd=0, w_feat=0, w_res=0, w_twi=0))
    plain = build_model(tiny_pose(head)).train()
    inputs, samples = model_inputs(plain, pose_batch(plain.head.decoder))
    expected = plain(inputs, copy.deepcopy(samples), mode='loss')
    losses = distiller(inputs, samples, mode='loss')
    assert {k: float(v) for k, v in losses.items()} == {k: float(v) for k, v in expected.items()}
    plain.load_state_dict({k: v for k, v in distiller.state_dict().items() if not k.startswith('methods.')})


@pytest.mark.parametrize('head', HEADS)
def test_the_integrated_form_is_a_plain_model(teachers, head):
    distiller = distiller_with(teachers[head, 'backbone'], dict(type='ERA')).eval()
    inputs, samples = data_of(distiller, training=False)
    distiller.set_variant('integrated')
    expected = distiller(inputs, copy.deepcopy(samples), mode='predict')
    model = distiller.variants['integrated'].build()
    with torch.no_grad():
        found = model(inputs, copy.deepcopy(samples), mode='predict')
    for a, b in zip(found, expected):
        assert np.allclose(a.pred_instances.keypoints, b.pred_instances.keypoints)
        assert np.allclose(a.pred_instances.keypoint_scores, b.pred_instances.keypoint_scores, atol=1e-6)


@pytest.mark.parametrize('at', PLACES)
def test_the_integrated_form_sees_mirror_images_through_the_student(tmp_path, at):
    """Predicted from the heatmaps of the estimates of both images, whatever the teacher's body would say."""
    cfg = dict(tiny_pose(width=12), test_cfg=FLIPS)
    teacher = FrozenTeacher(**save_random_teacher(cfg, tmp_path, seed=5), at=at)
    distiller = distiller_with(teacher, dict(type='ERA'), student=dict(tiny_pose(), test_cfg=FLIPS)).eval()
    inputs, samples = data_of(distiller, training=False)
    passes = []
    handle = teacher.model.backbone.register_forward_hook(lambda *_: passes.append(1))
    distiller.set_variant('integrated')
    found = distiller(inputs, copy.deepcopy(samples), mode='predict')
    handle.remove()
    assert not passes, "the teacher's body must not be run"
    assert distiller.methods['era'].refused.keys() == {'blend'}
    with torch.no_grad():
        estimates = [
            distiller.methods['era'].neck(distiller.pair.student_feats(distiller.adapter.extract(images)))
            for images in (inputs, inputs.flip(-1))
        ]
        own, mirrored = (
            teacher.model.head.forward(e) if at == 'backbone' else teacher.model.head.final_layer(e[0])
            for e in estimates
        )
    back = mirrored.flip(-1)[:, [1, 0, 2]]
    back[..., 1:] = back[..., :-1].clone()
    highest = ((own + back) / 2).flatten(2).amax(2)
    scores = np.concatenate([sample.pred_instances.keypoint_scores for sample in found])
    assert np.allclose(scores, highest.numpy(), atol=1e-6)


def test_models_that_do_not_fit_are_refused(teachers):
    teacher = teachers['heatmaps', 'backbone']
    codec = dict(type='MSRAHeatmap', input_size=(64, 96), heatmap_size=(16, 24), sigma=1)
    student = tiny_pose(decoder=codec)
    with pytest.raises(ValueError, match=r"ERA with TWI .* twi_on='none'") as error:
        distiller_with(teacher, dict(type='ERA', w_kd=0.0), student=student)
    assert 'sigma=1' in str(error.value) and 'sigma=2' in str(error.value)
    distiller_with(teacher, dict(type='ERA', twi_on='none'), student=student)
    for method in ('KD', 'DeepMutualLearning'):
        with pytest.raises(ValueError, match='codec: student MSRAHeatmap|learns heatmaps of the codec'):
            distiller_with(
                teacher, dict(type=method, **dict(peer=tiny_pose()) if method != 'KD' else {}), student=student
            )
    with pytest.raises(ValueError, match='no ground truth for them'):
        distiller_with(teacher, dict(type='SemiOnlineKD'), student=student)
    with pytest.raises(ValueError, match='outputs: student coordinates, teacher heatmaps'):
        distiller_with(teacher, dict(type='KD'), student=tiny_pose('coordinates'))
    with pytest.raises(ValueError, match='the outputs of the heads are heatmaps'):
        distiller_with(teacher, dict(type='KD', standardize_logits=True))
    with pytest.raises(ValueError, match='DWPose compares distributions over the bins'):
        distiller_with(teacher, dict(type='DWPose'))
    with pytest.raises(ValueError, match='DKD compares a softmax over classes'):
        distiller_with(teacher, dict(type='DKD'))


def test_a_teacher_of_more_keypoints_teaches_those_that_are_named(tmp_path):
    cfg = tiny_pose(width=12, out_channels=5)
    source = save_random_teacher(cfg, tmp_path)
    teacher = FrozenTeacher(**source, class_map=dict(left=4, right=0, nose=2))
    distiller = distiller_with(teacher, dict(type='KD'))
    losses, inputs, _ = losses_of(distiller)
    *_, own, other = by_hand(distiller, inputs)
    visible = torch.tensor([[1.0, 1, 0], [1, 1, 1]])[..., None, None]
    expected = (visible * (own - other[:, [4, 0, 2]])).square().mean() / 2
    assert losses['kd.loss_kd'].item() == pytest.approx(expected.item(), rel=1e-4)


def separated(head):
    """A student and an assistant of a quarter of the channels, whose sum the head reads."""
    cfg = tiny_pose(head)
    part = dict(cfg['backbone'], _scope_='mmpose')
    cfg['backbone'] = dict(
        type='mmrkd.ResidualPairBackbone',
        student=dict(part, base_channels=6, stem_channels=6),
        assistant=dict(part, base_channels=2, stem_channels=2),
        out_channels=[64],
    )
    return cfg


@pytest.mark.parametrize('head', HEADS)
def test_student_and_assistant_share_the_gap(teachers, head):
    distiller = distiller_with(teachers[head, 'backbone'], dict(type='ResidualKD'), student=separated(head))
    losses, inputs, samples = losses_of(distiller)
    own = {name: value for name, value in losses.items() if name.startswith('residualkd.loss')}
    assert own and all(torch.isfinite(value) for value in own.values())
    sum(own.values()).backward()
    assert distiller.student.backbone.assistant.conv1.weight.grad.abs().sum() > 0
    distiller.eval()
    for variant in distiller.variants:
        distiller.set_variant(variant)
        found = distiller(inputs, copy.deepcopy(samples), mode='predict')
        assert found[0].pred_instances.keypoints.shape == (1, 3, 2)


class TestDWPose:
    def test_both_terms(self, teachers):
        """As mmpose's release computes them, in other words."""
        distiller = distiller_with(teachers['coordinates', 'backbone'], dict(type='DWPose'))
        method = distiller.methods['dwpose']
        method.progress = Progress(epochs=30.5, share=30.5 / 120)
        losses, inputs, _ = losses_of(distiller)
        own, other, z_s, z_t = by_hand(distiller, inputs)
        with torch.no_grad():
            (lifted,) = method.projection((own,))
        feat = 7e-5 * F.mse_loss(lifted, other, reduction='sum') / 2
        logits = 0
        for s, t in zip(z_s, z_t):
            rows = F.kl_div((10 * s).log_softmax(2), (10 * t).softmax(2), reduction='none').sum(2)
            logits += 0.1 * rows.sum(1).mean() / 3
        assert losses['dwpose.loss_feat'].item() == pytest.approx(0.75 * feat.item(), rel=1e-3)
        assert losses['dwpose.loss_logits'].item() == pytest.approx(0.75 * logits.item(), rel=1e-3)

    def test_both_terms_fade_by_epochs(self):
        assert fading_factor(None) == fading_factor(Progress(0, 0)) == 1
        shares = [fading_factor(Progress(epoch, epoch / 4)) for epoch in (0.5, 1, 1.75, 3, 3.5)]
        assert shares == pytest.approx([1, 0.75, 0.75, 0.25, 0.25])

    def test_equal_widths_need_no_projection(self, teachers):
        distiller = distiller_with(
            teachers['coordinates', 'backbone'], dict(type='DWPose'), student=tiny_pose('coordinates', width=12)
        )
        assert not list(distiller.methods['dwpose'].parameters())

    def test_a_new_head_learns_from_the_student_of_stage_one(self, tmp_path):
        cfg = tiny_pose('coordinates')
        teacher = FrozenTeacher(**save_random_teacher(cfg, tmp_path, seed=5))
        distiller = distiller_with(teacher, dict(type='DWPose', stage=2), student=cfg)
        method, body = distiller.methods['dwpose'], teacher.model.backbone.state_dict()
        state = distiller.student.backbone.state_dict()
        assert all(torch.equal(state[name], value) for name, value in body.items())
        assert not torch.equal(distiller.student.head.cls_x.weight, teacher.model.head.cls_x.weight)
        method.enter_phase('head')
        method.hold_frozen()
        method.progress = Progress(3, 0.9)
        losses, *_ = losses_of(distiller)
        assert {name for name in losses if name.startswith('dwpose')} == {'dwpose.loss_logits'}
        sum(value for name, value in losses.items() if 'loss' in name).backward()
        trained = {name.split('.')[0] for name, p in distiller.student.named_parameters() if p.grad is not None}
        assert trained == {'head'}
        state = distiller.student.backbone.state_dict()
        assert all(torch.equal(state[name], value) for name, value in body.items()), 'norms must stand still'
        assert method.needed_hooks == ('PhaseHook',)

    def test_stage_two_needs_one_body(self, teachers):
        with pytest.raises(ValueError, match='theirs differ: backbone'):
            distiller_with(teachers['coordinates', 'backbone'], dict(type='DWPose', stage=2))

    @pytest.mark.parametrize('argument', [dict(stage=3), dict(w_feat=-1.0), dict(beta=0.0)])
    def test_numbers_out_of_range(self, teachers, argument):
        with pytest.raises(ValueError):
            distiller_with(teachers['coordinates', 'backbone'], dict(type='DWPose', **argument))

    def test_worked_number(self, teachers):
        """The specification's: x bins (0, 0) from (0, ln 3 / 10), y equal."""
        from mmrkd.models.losses import coordinate_kl

        adapter = distiller_with(teachers['coordinates', 'backbone']).adapter
        own = torch.zeros(1, 1, 2), torch.zeros(1, 1, 4)
        other = torch.tensor([[[0.0, math.log(3) / 10]]]), own[1]
        assert coordinate_kl(own, other, adapter.beta).item() == pytest.approx(0.130812, abs=1e-6)
