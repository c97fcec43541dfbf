"""Methods on a pair of segmentors: terms compared with independent formulas, whatever the place of the features."""

import copy

import pytest
import torch
import torch.nn.functional as F

from mmrkd.models.teacher import FrozenTeacher
from mmrkd.testing import (
    NUM_CLASSES,
    build_distiller,
    build_model,
    model_inputs,
    save_random_teacher,
    segmentation_batch,
    tiny_segmentor,
)

pytest.importorskip('mmseg', reason='the extra `segmentation` is not installed')
PLACES = ('backbone', 'penultimate')
WIDER = dict(width=12, channels=12, head='ASPPHead', dilations=(1, 2))


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    """Wider than the student, with another head."""
    return FrozenTeacher(**save_random_teacher(tiny_segmentor(**WIDER), tmp_path_factory.mktemp('teacher')))


@pytest.fixture(scope='module')
def deep_teacher(tmp_path_factory):
    """The same, as seen at its last convolution."""
    source = save_random_teacher(tiny_segmentor(**WIDER), tmp_path_factory.mktemp('teacher'))
    return FrozenTeacher(**source, at='penultimate')


@pytest.fixture
def teachers(teacher, deep_teacher):
    return dict(backbone=teacher, penultimate=deep_teacher)


def distiller_with(teacher, *methods, student=None, **kwargs):
    methods = [dict(method, type=f'mmrkd.{method["type"]}') for method in methods]
    return build_distiller(student or tiny_segmentor(), teacher, methods, at=teacher.adapter.at, **kwargs).train()


def losses_of(distiller, **batch):
    inputs, samples = model_inputs(distiller, segmentation_batch(**batch))
    return distiller(inputs, samples, mode='loss'), inputs, samples


def by_hand(distiller, inputs):
    """Features and logits of both models as plain code of the libraries gives them; dropout off in the student."""
    student, teacher = distiller.student, distiller.teacher.model
    with torch.no_grad():
        own, others = student.extract_feat(inputs), teacher.extract_feat(inputs)
        return own, others, student.decode_head(own), teacher.decode_head(others)


def without_dropout():
    return tiny_segmentor(dropout_ratio=0.0)


def test_soft_targets_are_averaged_over_pixels(teacher):
    distiller = distiller_with(teacher, dict(type='KD'), student=without_dropout())
    losses, inputs, _ = losses_of(distiller)
    *_, own, other = by_hand(distiller, inputs)
    p, q = other.softmax(1), own.softmax(1)
    expected = (p * (p / q).log()).sum(1).mean()
    assert losses['kd.loss_kd'].item() == pytest.approx(expected.item(), rel=1e-3)


def test_soft_targets_worked_number():
    """The specification's: KL of logits (0, 0) from (ln 3, 0) at temperature 1, on a map."""
    from mmrkd.models.heads import OutputMimicry

    adapter = build_distiller(tiny_segmentor(), None, []).adapter
    own = torch.zeros(2, 2, 3, 3)
    other = torch.stack([torch.full((2, 3, 3), 3.0).log(), torch.zeros(2, 3, 3)], dim=1)
    found = OutputMimicry(adapter)('loss_kd', 1.0, own, other)['loss_kd']
    assert found.item() == pytest.approx(0.130812, abs=1e-6)


def test_channels_of_logits_are_distributions_over_positions(teacher):
    method = dict(type='CWD', on='logits', w_cwd=3.0, tau=4.0)
    distiller = distiller_with(teacher, method, student=without_dropout())
    assert distiller.methods['cwd'].strides == [8]
    losses, inputs, _ = losses_of(distiller)
    *_, own, other = by_hand(distiller, inputs)
    p, q = ((z.flatten(2) / 4).softmax(2) for z in (other, own))
    expected = 3 * 16 * (p * (p / q).log()).sum() / (2 * NUM_CLASSES)
    assert losses['cwd.loss_cwd'].item() == pytest.approx(expected.item(), rel=1e-3)


def test_what_heads_read_is_matched_with_its_counterpart(teacher):
    """Both maps have stride 8: that of the decode head must not be matched with that of the auxiliary head."""
    distiller = distiller_with(teacher, dict(type='FitNets', standardize=False))
    assert distiller.match.student_channels == [64, 32] and distiller.match.teacher_channels == [96, 48]
    losses, inputs, _ = losses_of(distiller)
    own, others, *_ = by_hand(distiller, inputs)
    with torch.no_grad():
        projected = distiller.methods['fitnets'].projection((own[3], own[2]))
    expected = (F.mse_loss(projected[0], others[3]) + F.mse_loss(projected[1], others[2])) / 2
    assert losses['fitnets.loss_feat'].item() == pytest.approx(expected.item(), rel=1e-4)
    alone = distiller_with(teacher, dict(type='FitNets'), student=tiny_segmentor(aux=False))
    assert alone.match.student_channels == [64] and alone.match.teacher_channels == [96]


def test_hint_on_what_the_last_convolution_reads(deep_teacher):
    distiller = distiller_with(deep_teacher, dict(type='FitNets', standardize=False))
    assert distiller.match.student_channels == [8] and distiller.match.teacher_channels == [12]
    losses, inputs, _ = losses_of(distiller)
    u = {}
    for name, model in dict(student=distiller.student, teacher=distiller.teacher.model).items():
        handle = model.decode_head.conv_seg.register_forward_pre_hook(
            lambda _m, args, name=name: u.update({name: args[0]})
        )
        with torch.no_grad():
            model.decode_head.dropout, kept = None, model.decode_head.dropout
            model.decode_head(model.extract_feat(inputs))
            model.decode_head.dropout = kept
        handle.remove()
    expected = F.mse_loss(distiller.methods['fitnets'].projection((u['student'],))[0], u['teacher'])
    assert losses['fitnets.loss_feat'].item() == pytest.approx(expected.item(), rel=1e-4)


def test_attention_pairs_maps_of_one_stride_in_their_order(teacher):
    distiller = distiller_with(teacher, dict(type='AttentionTransfer', w_at=1.0))
    losses, inputs, _ = losses_of(distiller)
    own, others, *_ = by_hand(distiller, inputs)
    expected = 0
    for s, t in zip(own, others):
        q, p = (F.normalize(f.square().sum(1).flatten(1), dim=1) for f in (s, t))
        expected += F.mse_loss(q, p)
    assert losses['attentiontransfer.loss_at'].item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize('at', PLACES)
def test_the_heads_of_the_teacher_judge_the_estimate(teachers, at):
    teacher = teachers[at]
    method = dict(type='ERA', num_branches=1, w_twi=2.0, w_kd=0.0, twi_on='last')
    distiller = distiller_with(teacher, method, student=without_dropout())
    before = teacher.fingerprint()
    era = distiller.methods['era']
    losses, inputs, samples = losses_of(distiller)
    with torch.no_grad():
        estimate = era.neck(distiller.pair.student_feats(distiller.adapter.extract(inputs)))
        model, labels = teacher.model, distiller.adapter.targets(samples)
        if at == 'backbone':
            body = list(model.extract_feat(inputs))
            body[3], body[2] = estimate
            logits = [(model.decode_head(body), 1.0), (model.auxiliary_head(body), 0.4)]
        else:
            logits = [(model.decode_head.conv_seg(estimate[0]), 1.0)]
        expected = 0
        for z, weight in logits:
            z = F.interpolate(z, labels.shape[1:], mode='bilinear', align_corners=False)
            expected += weight * F.cross_entropy(z, labels, ignore_index=255, reduction='none').mean()
    assert losses['era.loss_twi_1'].item() == pytest.approx(2 * expected.item(), rel=1e-3)
    sum(value for name, value in losses.items() if name.startswith('era.')).backward()
    assert distiller.student.backbone.conv1.weight.grad.abs().sum() > 0
    assert teacher.fingerprint() == before


METHODS = ('KD', 'CWD', 'AttentionTransfer', 'FitNets', 'DeepMutualLearning', 'SemiOnlineKD', 'ERA')


@pytest.mark.parametrize('at', PLACES)
@pytest.mark.parametrize('method', METHODS)
def test_methods_train_and_predict(teachers, method, at):
    distiller = distiller_with(teachers[at], dict(type=method))
    losses, inputs, samples = losses_of(distiller)
    own = {name: value for name, value in losses.items() if name.startswith(f'{method.lower()}.loss')}
    assert own and all(torch.isfinite(value) for value in own.values())
    sum(own.values()).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in distiller.student.parameters())
    distiller.eval()
    for variant in distiller.variants:
        distiller.set_variant(variant)
        found = distiller(inputs, copy.deepcopy(samples), mode='predict')
        assert [sample.pred_sem_seg.data.shape for sample in found] == [(1, 64, 64)] * 2


@pytest.mark.parametrize('at', PLACES)
def test_without_a_method_nothing_changes(teachers, at):
    distiller = distiller_with(teachers[at], dict(type='ERA', w_kd=0, w_feat=0, w_res=0, w_twi=0))
    plain = build_model(tiny_segmentor()).train()
    inputs, samples = model_inputs(plain, segmentation_batch())
    torch.manual_seed(0)
    expected = plain(inputs, copy.deepcopy(samples), mode='loss')
    torch.manual_seed(0)
    losses = distiller(inputs, samples, mode='loss')
    assert {name: value.item() for name, value in losses.items()} == {k: v.item() for k, v in expected.items()}
    plain.load_state_dict({k: v for k, v in distiller.state_dict().items() if not k.startswith('methods.')})


def test_the_integrated_form_is_a_plain_model(teacher):
    distiller = distiller_with(teacher, dict(type='ERA')).eval()
    variant = distiller.variants['integrated']
    inputs, samples = model_inputs(distiller, segmentation_batch(), training=False)
    distiller.set_variant('integrated')
    expected = distiller(inputs, copy.deepcopy(samples), mode='predict')
    model = variant.build()
    with torch.no_grad():
        found = model(inputs, copy.deepcopy(samples), mode='predict')
    assert all(torch.allclose(a.seg_logits.data, b.seg_logits.data, atol=1e-6) for a, b in zip(found, expected))
    assert [type(part).__name__ for part in model.neck][::2] == ['SelectLevels', 'PlaceLevels']


def test_there_is_no_plain_model_of_two_halves_of_heads(deep_teacher):
    distiller = distiller_with(deep_teacher, dict(type='ERA'))
    with pytest.raises(ValueError, match="no plain config of the integrated form with features at='penultimate'"):
        distiller.variants['integrated'].model_config()


def test_windows_of_the_integrated_form_go_through_the_student(teacher):
    distiller = distiller_with(teacher, dict(type='ERA')).eval()
    distiller.set_variant('integrated')
    inputs, samples = model_inputs(distiller, segmentation_batch(size=(64, 96)), training=False)
    teacher.model.test_cfg, whole = (
        type(teacher.model.test_cfg)(mode='slide', crop_size=(64, 64), stride=(32, 32)),
        (teacher.model.test_cfg),
    )
    passes = []
    handle = teacher.model.backbone.register_forward_hook(lambda *_: passes.append(1))
    try:
        found = distiller(inputs, samples, mode='predict')
        windows = []
        teacher.model.test_cfg = whole
        for start in (0, 32):
            cut = copy.deepcopy(samples)
            for sample in cut:
                sample.set_metainfo(dict(img_shape=(64, 64), ori_shape=(64, 64), pad_shape=(64, 64)))
            part = distiller(inputs[..., start : start + 64], cut, mode='predict')
            windows.append(torch.stack([sample.seg_logits.data for sample in part]))
    finally:
        teacher.model.test_cfg = whole
        handle.remove()
    total = F.pad(windows[0], (0, 32)) + F.pad(windows[1], (32, 0))
    expected = total / torch.tensor([1.0] * 32 + [2.0] * 32 + [1.0] * 32)
    assert torch.allclose(torch.stack([sample.seg_logits.data for sample in found]), expected, atol=1e-6)
    assert not passes, "the teacher's body must not be run"


def test_models_that_do_not_fit_are_refused(teacher, deep_teacher):
    with pytest.raises(ValueError, match='align_corners: student True, teacher False'):
        distiller_with(teacher, dict(type='KD'), student=tiny_segmentor(align_corners=True))
    with pytest.raises(ValueError, match="the student has them at='backbone', the teacher 'default' at='penultimate'"):
        build_distiller(tiny_segmentor(), deep_teacher, [dict(type='mmrkd.FitNets')])
    with pytest.raises(ValueError, match='DKD compares a softmax over classes'):
        distiller_with(teacher, dict(type='DKD'))


def separated():
    """A student and an assistant of a quarter of the channels, whose sum the heads read."""
    cfg = tiny_segmentor()
    part = dict(cfg['backbone'], _scope_='mmseg')
    cfg['backbone'] = dict(
        type='mmrkd.ResidualPairBackbone',
        student=dict(part, base_channels=6, stem_channels=6),
        assistant=dict(part, base_channels=2, stem_channels=2),
        out_channels=[8, 16, 32, 64],
    )
    return cfg


@pytest.mark.parametrize('at', PLACES)
def test_student_and_assistant_share_the_gap(teachers, at):
    method = dict(type='ResidualKD', stages='all', standardize=False)
    distiller = distiller_with(teachers[at], method, student=separated())
    assert distiller.methods['residualkd'].counterparts == [0, 1, 2, 3]
    losses, inputs, samples = losses_of(distiller)
    own = {name: value for name, value in losses.items() if name.startswith('residualkd.loss')}
    assert own and all(torch.isfinite(value) for value in own.values())
    sum(own.values()).backward()
    assert distiller.student.backbone.assistant.conv1.weight.grad.abs().sum() > 0
    distiller.eval()
    for variant in distiller.variants:
        distiller.set_variant(variant)
        assert distiller(inputs, copy.deepcopy(samples), mode='predict')[0].pred_sem_seg.data.shape == (1, 64, 64)
