"""RDD on real heads: what the student's own loss becomes, compared with formulas on plain tensors."""

import copy

import pytest
import torch
import torch.nn.functional as F

from mmrkd.models import Progress
from mmrkd.models.teacher import FrozenTeacher
from mmrkd.testing import (
    NUM_CLASSES,
    build_distiller,
    build_model,
    model_inputs,
    save_random_teacher,
    segmentation_batch,
    tiny_classifier,
    tiny_retinanet,
    tiny_segmentor,
)

pytest.importorskip('mmseg', reason='the extra `segmentation` is not installed')
CLASS_WEIGHTS = [0.5, 1.0, 2.0, 0.25]
WIDER = dict(width=12, channels=12, head='ASPPHead', dilations=(1, 2))
TFE, TSE = Progress(0.0, 0.0, 0, 100), Progress(5.0, 0.5, 50, 100)


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    return FrozenTeacher(**save_random_teacher(tiny_segmentor(**WIDER), tmp_path_factory.mktemp('rdd')))


@pytest.fixture(scope='module')
def deep_teacher(tmp_path_factory):
    source = save_random_teacher(tiny_segmentor(**WIDER), tmp_path_factory.mktemp('rdd'))
    return FrozenTeacher(**source, at='penultimate')


def student_cfg(class_weight=None, avg_non_ignore=False, aux=True):
    cfg = tiny_segmentor(dropout_ratio=0.0, aux=aux)
    loss = dict(type='CrossEntropyLoss', class_weight=class_weight, avg_non_ignore=avg_non_ignore)
    cfg['decode_head']['loss_decode'] = loss
    if aux:
        cfg['auxiliary_head'].update(loss_decode=dict(loss, loss_weight=0.4), dropout_ratio=0.0)
    return cfg


def build(teacher, student=None, progress=TSE, **method):
    method = dict(dict(type='mmrkd.RDD', min_kept=500), **method)
    distiller = build_distiller(student or student_cfg(), teacher, [method], seed=3, at=teacher.adapter.at).train()
    distiller.methods[0].progress = progress
    sharpen(distiller.student)
    return distiller


def sharpen(model, factor=40.0):
    """Random heads give the same logits everywhere."""
    with torch.no_grad():
        for head in (model.decode_head, getattr(model, 'auxiliary_head', None)):
            if head is not None:
                head.conv_seg.weight *= factor


@pytest.fixture(scope='module', autouse=True)
def opinionated(teacher, deep_teacher):
    for own in (teacher, deep_teacher):
        sharpen(own.model)


def losses_of(distiller, **batch):
    inputs, samples = model_inputs(distiller, segmentation_batch(**batch))
    return distiller(inputs, copy.deepcopy(samples), mode='loss'), inputs, samples


def plain_logits(model, inputs):
    """Of decode and auxiliary head, as plain code of the library gives them."""
    feats = model.extract_feat(inputs)
    return model.decode_head(feats), model.auxiliary_head(feats)


def up(logits, size=(64, 64)):
    return F.interpolate(logits, size, mode='bilinear', align_corners=False)


def by_hand(distiller, inputs, samples):
    """Logits of student and teacher, and labels."""
    with torch.no_grad():
        own, others = plain_logits(distiller.student, inputs), plain_logits(distiller.teacher.model, inputs)
    return own, others, torch.cat([sample.gt_sem_seg.data for sample in samples])


def easy(own, others, labels):
    """TFE, by the paper's formula: decode head, auxiliary head."""
    z, a = (logits.softmax(1) for logits in others)
    weight = (-(a * (a / z).log()).sum(1, keepdim=True)).exp()
    weight = F.interpolate(weight, labels.shape[1:], mode='bilinear', align_corners=True)[:, 0]
    entropies = [F.cross_entropy(up(z), labels, ignore_index=255, reduction='none') for z in own]
    return [(weight * entropy).sum().item() / labels.numel() for entropy in entropies]


def hard(logits, labels, theta, kept):
    p = up(logits).softmax(1).gather(1, labels.clamp(max=NUM_CLASSES - 1)[:, None])[:, 0]
    least = sorted(p[labels != 255].tolist())[kept - 1]
    return (p <= max(theta, least)) & (labels != 255)


def disputed(own, others, labels, theta=0.7, kept=500, class_weight=None, combine=torch.logical_xor):
    """TSE: decode head, auxiliary head."""
    found = []
    for z_s, z_t in zip(own, others):
        mask = combine(hard(z_s, labels, theta, kept), hard(z_t, labels, theta, kept))
        assert 0 < mask.sum() < labels.numel(), 'a mask that says nothing'
        weight = None if class_weight is None else torch.tensor(class_weight)
        chosen = labels.where(mask, torch.tensor(255))
        found.append(F.cross_entropy(up(z_s), chosen, weight=weight, ignore_index=255).item())
    return found


LOSSES = [dict(), dict(avg_non_ignore=True), dict(class_weight=CLASS_WEIGHTS)]


@pytest.mark.parametrize('loss', LOSSES)
def test_first_those_that_the_teacher_finds_easy(teacher, loss):
    distiller = build(teacher, student_cfg(**loss), TFE)
    losses, inputs, samples = losses_of(distiller)
    main, auxiliary = easy(*by_hand(distiller, inputs, samples))
    assert losses['decode.loss_ce'].item() == pytest.approx(main, rel=1e-5)
    assert losses['aux.loss_ce'].item() == pytest.approx(0.4 * auxiliary, rel=1e-5)


@pytest.mark.parametrize('loss', LOSSES)
def test_then_those_that_the_two_disagree_about(teacher, loss):
    distiller = build(teacher, student_cfg(**loss))
    losses, inputs, samples = losses_of(distiller)
    main, auxiliary = disputed(*by_hand(distiller, inputs, samples), class_weight=loss.get('class_weight'))
    assert losses['decode.loss_ce'].item() == pytest.approx(main, rel=1e-5)
    assert losses['aux.loss_ce'].item() == pytest.approx(0.4 * auxiliary, rel=1e-5)


def test_the_least_probable_ones_are_hard_in_any_case(teacher):
    losses, inputs, samples = losses_of(build(teacher, theta=0))
    main, auxiliary = disputed(*by_hand(build(teacher), inputs, samples), theta=0)
    assert losses['decode.loss_ce'].item() == pytest.approx(main, rel=1e-5)
    assert losses['aux.loss_ce'].item() == pytest.approx(0.4 * auxiliary, rel=1e-5)


@pytest.mark.parametrize(
    'combination, combine',
    [('or', torch.logical_or), ('and', torch.logical_and), ('student', lambda student, _teacher: student)],
)
def test_other_combinations(teacher, combination, combine):
    distiller = build(teacher, combination=combination, theta=0.3, min_kept=200)
    losses, inputs, samples = losses_of(distiller)
    main, _ = disputed(*by_hand(distiller, inputs, samples), theta=0.3, kept=200, combine=combine)
    assert losses['decode.loss_ce'].item() == pytest.approx(main, rel=1e-5)


def test_beside_it_plain_soft_targets(teacher):
    distiller = build(teacher, w_kd=2.0)
    losses, inputs, samples = losses_of(distiller)
    own, others, _ = by_hand(distiller, inputs, samples)
    p, q = others[0].softmax(1), own[0].softmax(1)
    assert losses['rdd.loss_kd'].item() == pytest.approx(2 * (p * (p / q).log()).sum(1).mean().item(), rel=1e-4)


def test_features_in_the_head_change_nothing(teacher, deep_teacher):
    found = []
    for own in (teacher, deep_teacher):
        distiller = build(own, progress=TFE)
        losses = losses_of(distiller)[0]
        found.append([losses[name].item() for name in ('decode.loss_ce', 'aux.loss_ce', 'rdd.loss_kd')])
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_a_share_of_the_pixels_is_kept(teacher):
    losses = [losses_of(build(teacher, min_kept=kept, theta=0))[0] for kept in (0.0625, 512, 500)]
    found = [own['decode.loss_ce'].item() for own in losses]
    assert found[0] == found[1] != found[2]


def test_a_student_without_auxiliary_head(teacher):
    distiller = build(teacher, student_cfg(aux=False))
    losses, inputs, samples = losses_of(distiller)
    feats = distiller.student.extract_feat(inputs)
    _, others, labels = distiller, plain_logits(teacher.model, inputs), torch.cat([s.gt_sem_seg.data for s in samples])
    (main,) = disputed([distiller.student.decode_head(feats).detach()], others, labels)
    assert losses['decode.loss_ce'].item() == pytest.approx(main, rel=1e-5) and 'aux.loss_ce' not in losses


def test_a_share_of_the_loss_stays_plain(teacher):
    weighed, inputs, samples = losses_of(build(teacher, student_cfg(avg_non_ignore=True)))
    half = losses_of(build(teacher, student_cfg(avg_non_ignore=True), w_rdd=0.5))[0]
    plain = losses_of(build(teacher, student_cfg(avg_non_ignore=True), w_rdd=0))[0]
    for name in ('decode.loss_ce', 'aux.loss_ce'):
        assert half[name].item() == pytest.approx((weighed[name].item() + plain[name].item()) / 2, rel=1e-5)
        assert abs(weighed[name].item() - plain[name].item()) > 1e-3
    scheduled = build(teacher, student_cfg(avg_non_ignore=True))
    scheduled.methods[0].scale = 0.5
    assert losses_of(scheduled)[0]['decode.loss_ce'].item() == pytest.approx(half['decode.loss_ce'].item(), rel=1e-6)


def test_without_a_weight_it_is_off_bit_for_bit(teacher):
    distiller = build(teacher, w_kd=0, w_rdd=0)
    plain = build_model(student_cfg(), seed=3).train()
    sharpen(plain)
    inputs, samples = model_inputs(plain, segmentation_batch())
    expected = plain(inputs, copy.deepcopy(samples), mode='loss')
    found = distiller(inputs, samples, mode='loss')
    assert {name: value.item() for name, value in found.items()} == {k: v.item() for k, v in expected.items()}


def test_weights_of_one_leave_the_loss_as_it_is(teacher):
    """All pixels, averaged as the head itself does it."""
    distiller = build(teacher, student_cfg(avg_non_ignore=True), combination='or', theta=1.0)
    losses, inputs, samples = losses_of(distiller)
    plain = build_model(student_cfg(avg_non_ignore=True), seed=3).train()
    sharpen(plain)
    expected = plain(inputs, copy.deepcopy(samples), mode='loss')
    assert losses['decode.loss_ce'].item() == pytest.approx(expected['decode.loss_ce'].item(), rel=1e-5)
    assert losses['decode.acc_seg'].item() == expected['decode.acc_seg'].item()


class TestProgress:
    """W = 10 of 100 iterations."""

    @pytest.mark.parametrize(
        'done, share', [(0, 1), (8, 1), (9, 0), (50, 0)]
    )  # the iteration that begins is one more than those that are done
    @pytest.mark.parametrize('warmup', [10, 0.1])
    def test_the_first_iterations(self, teacher, warmup, done, share):
        distiller = build(teacher, progress=Progress(done / 10, done / 100, done, 100), warmup=warmup)
        assert distiller.methods[0].easy_share == share

    @pytest.mark.parametrize('done, share', [(8, 1), (9, 1), (54, 0.5), (99, 0)])
    def test_it_may_fade(self, teacher, done, share):
        progress = Progress(done / 10, done / 100, done, 100)
        distiller = build(teacher, progress=progress, warmup=10, fade=True)
        assert distiller.methods[0].easy_share == pytest.approx(share)

    def test_what_fades_is_mixed(self, teacher):
        progress = Progress(5.4, 0.54, 54, 100)
        distiller = build(teacher, progress=progress, warmup=10, fade=True)
        losses, inputs, samples = losses_of(distiller)
        parts = by_hand(distiller, inputs, samples)
        expected = (easy(*parts)[0] + disputed(*parts)[0]) / 2
        assert losses['decode.loss_ce'].item() == pytest.approx(expected, rel=1e-5)

    def test_without_a_runner_the_second_stage_is_meant(self, teacher):
        assert build(teacher, progress=None).methods[0].easy_share == 0
        assert build(teacher, warmup=0, progress=TFE).methods[0].easy_share == 0

    def test_what_counts_iterations_must_be_there(self, teacher):
        assert build(teacher).methods[0].needed_hooks == ('PhaseHook',)
        assert build(teacher, warmup=0).methods[0].needed_hooks == ()


class TestNothingToLearnFrom:
    def test_all_pixels_are_ignored(self, teacher):
        for progress in (TFE, TSE):
            distiller = build(teacher, progress=progress)
            inputs, samples = model_inputs(distiller, segmentation_batch())
            for sample in samples:
                sample.gt_sem_seg.data.fill_(255)
            losses = distiller(inputs, samples, mode='loss')
            assert losses['decode.loss_ce'].item() == 0 and losses['aux.loss_ce'].item() == 0
            distiller.parse_losses(losses)[0].backward()
            assert all(torch.isfinite(p.grad).all() for p in distiller.student.parameters() if p.grad is not None)

    def test_a_batch_without_easier_pixels(self, teacher, monkeypatch):
        said = []
        monkeypatch.setattr('mmrkd.models.methods.rdd.print_log', lambda text, *_: said.append(text))
        distiller = build(teacher, min_kept=8192)
        for _ in range(2):
            assert losses_of(distiller)[0]['decode.loss_ce'].item() == 0
        assert len(said) == 1 and 'min_kept=8192 pixels are hard in any case, and a batch has 8192' in said[0]

    def test_both_find_the_same_pixels_hard(self, teacher):
        """All that are not ignored: 2 x 64 x 63."""
        losses = losses_of(build(teacher, min_kept=8100))[0]
        assert losses['decode.loss_ce'].item() == 0 and torch.isfinite(losses['rdd.loss_kd'])

    @pytest.mark.parametrize('loss', LOSSES)
    def test_what_an_ignored_pixel_predicts_is_no_matter(self, teacher, loss):
        distiller = build(teacher, student_cfg(**loss))
        inputs, samples = model_inputs(distiller, segmentation_batch())
        asked = []
        with distiller.adapter.weighing(lambda pixels: asked.append(pixels) or pixels.valid.float()):
            distiller.student(inputs, copy.deepcopy(samples), mode='loss')
        assert [pixels.main for pixels in asked] == [True, False]
        for pixels in asked:
            assert bool((pixels.class_weights[~pixels.valid] == 0).all())
            assert pixels.plain.sum().item() == pytest.approx(1 if loss else 63 / 64, rel=1e-5)


def test_gradients_reach_the_student_alone(teacher):
    before = teacher.fingerprint()
    distiller = build(teacher)
    losses = losses_of(distiller)[0]
    losses['decode.loss_ce'].backward()
    assert distiller.student.backbone.conv1.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in teacher.model.parameters()) and teacher.fingerprint() == before
    assert distiller.student.decode_head.sampler is None and distiller.student.auxiliary_head.sampler is None


def test_the_heads_of_the_teacher_run_once(teacher):
    distiller, calls = build(teacher, progress=Progress(5.4, 0.54, 54, 100), fade=True), []
    handles = [
        head.register_forward_hook(lambda module, *_: calls.append(module))
        for head in (teacher.model.decode_head, teacher.model.auxiliary_head)
    ]
    losses_of(distiller)
    for handle in handles:
        handle.remove()
    assert calls == [teacher.model.decode_head, teacher.model.auxiliary_head]


class TestRefused:
    def test_a_teacher_with_one_head(self, tmp_path):
        alone = save_random_teacher(tiny_segmentor(**WIDER, aux=False), tmp_path)
        with pytest.raises(ValueError, match='has 0. Take a teacher that was trained with an auxiliary_head, or KD'):
            build(FrozenTeacher(**alone))
        build(FrozenTeacher(**alone), w_rdd=0)

    def test_a_head_that_is_not_there(self, teacher):
        with pytest.raises(ValueError, match='expected number 1 of its auxiliary heads, but .* has 1'):
            build(teacher, auxiliary=1)

    def test_a_loss_of_another_kind(self, teacher):
        cfg = student_cfg()
        cfg['decode_head']['loss_decode'] = dict(type='DiceLoss', use_sigmoid=False)
        with pytest.raises(ValueError, match='the FCNHead needs one CrossEntropyLoss of exclusive classes'):
            build(teacher, cfg)
        cfg['decode_head'].update(loss_decode=dict(type='CrossEntropyLoss'))
        cfg['decode_head']['sampler'] = dict(type='OHEMPixelSampler', thresh=0.7, min_kept=100)
        with pytest.raises(ValueError, match=r'has a sampler of its own \(OHEMPixelSampler\)'):
            build(teacher, cfg)

    def test_an_auxiliary_loss_of_another_kind_is_left_as_it_is(self, teacher):
        cfg = student_cfg()
        cfg['auxiliary_head']['loss_decode'] = dict(type='DiceLoss')
        distiller = build(teacher, cfg)
        losses, inputs, samples = losses_of(distiller)
        plain = distiller.student(inputs, copy.deepcopy(samples), mode='loss')
        assert losses['aux.loss_dice'].item() == pytest.approx(plain['aux.loss_dice'].item(), rel=1e-6)
        assert losses['decode.loss_ce'].item() != pytest.approx(plain['decode.loss_ce'].item(), rel=1e-2)

    def test_a_head_that_asks_no_sampler(self, teacher):
        distiller = build(teacher)
        head = distiller.student.decode_head
        head.loss_by_feat = lambda logits, samples: dict(loss_ce=logits.mean())
        with pytest.raises(ValueError, match=r"the losses of \['FCNHead'\] cannot be weighed"):
            losses_of(distiller)

    @pytest.mark.parametrize('cfg', [tiny_classifier, tiny_retinanet])
    def test_other_models(self, cfg, tmp_path):
        with pytest.raises(ValueError, match='RDD'):
            build_distiller(cfg(), save_random_teacher(cfg(12), tmp_path), [dict(type='mmrkd.RDD')])

    @pytest.mark.parametrize(
        'argument',
        [dict(w_rdd=1.5), dict(theta=2.0), dict(warmup=-1), dict(warmup=1.5), dict(combination='nand')],
    )
    def test_numbers_out_of_range(self, teacher, argument):
        with pytest.raises((ValueError, TypeError), match='RDD'):
            build(teacher, **argument)
