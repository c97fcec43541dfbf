"""ERA on the levels of a detector's neck; ``test_era.py`` has the classifiers."""

import copy

import pytest
import torch
from reference import (
    bernoulli_kl,
    era_losses,
    level_mse,
    mbrnet,
    partial_sums,
    reached,
    second_teacher,
    stir,
    task_total,
)

from mmrkd.engine.step_counts import count_step
from mmrkd.models.method_state import describe_methods, restored_state
from mmrkd.models.pair import HeadsDiffer
from mmrkd.testing import (
    build_distiller,
    detection_batch,
    model_inputs,
    save_random_teacher,
    tiny_faster_rcnn,
    tiny_gfl,
    tiny_retinanet,
)

# Given in full, so that a better default does not move these tests.
WEIGHTS = dict(
    w_kd=0.0, w_box=0.0, w_feat=0.7, w_res=0.4, w_twi=0.5, twi_on='ends', num_branches=2, branch_weights=(1.0, 0.5)
)
SCALES = (1.0, 0.5)


def build(teacher, student=None, double=True, fixed=True, **era):
    """A distiller in training mode, its branches stirred, and a batch for it.

    Args:
        fixed: Whether the teacher's statistics are given numbers that no batch changes.
    """
    method = dict(type='mmrkd.ERA', **{**WEIGHTS, **era})
    distiller = build_distiller(student or tiny_retinanet(), teacher, [method])
    inputs, samples = model_inputs(distiller, detection_batch())
    neck = stir(distiller.methods[0].neck, seed=3)
    if double:
        distiller.double()
        inputs = inputs.double()
    if fixed and neck.standardizer is not None:
        fix_statistics(neck.standardizer)
    return distiller.train(), inputs, samples


def fix_statistics(standardizer):
    generator = torch.Generator().manual_seed(4)
    for level in range(standardizer.num_levels):
        mean, variance = getattr(standardizer, f'mean{level}'), getattr(standardizer, f'variance{level}')
        mean.normal_(generator=generator)
        variance.uniform_(0.5, 2, generator=generator)
    standardizer.updates.fill_(standardizer.max_updates)


def flat(cls_scores, classes=4):
    """Dense logits, a row for each anchor."""
    rows = [s.reshape(len(s), -1, classes, *s.shape[-2:]).permute(0, 3, 4, 1, 2) for s in cls_scores]
    return torch.cat([r.reshape(-1, classes) for r in rows])


class Reference:
    """Features, units and the teacher's own head, with none of the package's code."""

    def __init__(self, distiller, inputs, samples, teacher, double=True):
        self.model = second_teacher(teacher, double)
        self.samples = samples
        neck = distiller.methods[0].neck
        self.weights = {**dict(neck.named_parameters()), **dict(neck.named_buffers())}
        student_feats = distiller.student.extract_feat(inputs)
        with torch.no_grad():
            self.all_feats = list(self.model.extract_feat(inputs))
        strides = {inputs.shape[-1] // f.shape[-1]: f for f in student_feats}
        theirs = [inputs.shape[-1] // f.shape[-1] for f in self.all_feats]
        self.f_s = [strides[s] for s in theirs if s in strides]
        self.index = [i for i, s in enumerate(theirs) if s in strides]
        self.f_t = [self.all_feats[i] for i in self.index]
        self.scale = [(torch.zeros(()), torch.ones(()))] * len(self.f_t)  # (mean, std) of each level
        if neck.standardizer is not None:
            for level in range(len(self.f_t)):
                mean = self.weights[f'standardizer.mean{level}']
                std = self.weights[f'standardizer.variance{level}'] ** 0.5
                self.scale[level] = (mean.reshape(1, -1, 1, 1), std.reshape(1, -1, 1, 1))

    def targets(self):
        return [(f - mean) / std for f, (mean, std) in zip(self.f_t, self.scale)]

    def steps(self, num_branches=2):
        return mbrnet(self.f_s, self.weights, num_branches, [2] * num_branches, norm='GN', groups=2)

    def for_head(self, estimate):
        """The estimate on the teacher's scale; levels that the student does not have are the teacher's own."""
        feats = list(self.all_feats)
        for index, h, (mean, std) in zip(self.index, estimate, self.scale):
            feats[index] = h * std + mean
        return tuple(feats)

    def judge(self, estimate):
        feats = self.for_head(estimate)
        logits = flat(self.model.bbox_head(feats)[0])
        return task_total(self.model.bbox_head.loss(feats, self.samples)), logits

    def judge_two_stage(self, estimate):
        feats = self.for_head(estimate)
        samples = copy.deepcopy(self.samples)
        for sample in samples:  # the first stage tells objects from background alone
            sample.gt_instances.labels.zero_()
        rpn, proposals = self.model.rpn_head.loss_and_predict(
            feats, samples, proposal_cfg=self.model.train_cfg.rpn_proposal
        )
        roi = self.model.roi_head.loss(feats, proposals, copy.deepcopy(self.samples))
        return task_total(rpn) + task_total(roi), None

    def last(self, num_branches=2):
        return partial_sums(*self.steps(num_branches))[-1]


def assert_losses(found, expected, **tolerance):
    found = {name: value for name, value in found.items() if name.startswith('era.')}
    assert set(found) == {f'era.{name}' for name in expected}
    for name, value in expected.items():
        assert value.item() > 1e-4, name
        assert found[f'era.{name}'].item() == pytest.approx(value.item(), **tolerance), name


@pytest.mark.parametrize(
    'case',
    [
        dict(twi_on='all'),
        dict(twi_on='ends', w_kd=1.5, tau=2.0),
        dict(twi_on='last', w_kd=1.5, tau=2.0, twi_kd=True),
        dict(twi_on='none', standardize=False),
        dict(twi_on='ends', standardize=False),
    ],
    ids=str,
)
def test_loss_dictionary_of_retinanet_is_the_formula(wide_retinanet, case):
    distiller, inputs, samples = build(wide_retinanet, **case)
    if case.get('w_kd'):
        with torch.no_grad():
            distiller.student.bbox_head.retina_cls.weight.mul_(10)  # so that there is something to tell apart
    reference = Reference(distiller, inputs, samples, wide_retinanet)
    settings = {**WEIGHTS, 'twi_kd': False, 'tau': 1.0, **case}
    expected = era_losses(
        *reference.steps(),
        reference.targets(),
        reference.judge,
        lambda z_p, z_q: bernoulli_kl(z_p, z_q, settings['tau']),
        flat(distiller.student.bbox_head(distiller.student.extract_feat(inputs))[0]),
        flat(reference.model.bbox_head(reference.all_feats)[0]),
        SCALES,
        judged={'all': (0, 1, 2), 'ends': (0, 2), 'last': (2,), 'none': ()}[case['twi_on']],
        **{name: settings[name] for name in ('w_kd', 'w_feat', 'w_res', 'w_twi', 'twi_kd')},
    )
    assert_losses(distiller.loss(inputs, samples), expected, rel=1e-6, abs=1e-6)


def test_the_default_has_soft_targets_of_logits_and_boxes(wide_retinanet):
    method = build_distiller(tiny_retinanet(), wide_retinanet, [dict(type='mmrkd.ERA')]).methods[0]
    assert (method.w_kd, method.w_feat, method.w_res, method.w_twi) == (0.2, 0.3, 0.3, 2.0)
    assert method.num_branches == 2 and method.branch_weights == [1, 1] and method.judged_steps == (2,)
    assert not method.twi_kd and method.standardize


def test_the_soft_targets_are_those_of_kd(wide_retinanet):
    distiller, inputs, samples = build(wide_retinanet, w_kd=None, w_box=None)
    kd = dict(type='mmrkd.KD', w_kd=0.2, tau=1.0, w_box=20.0)
    other = build_distiller(tiny_retinanet(), wide_retinanet, [kd]).double().train()
    other.student.load_state_dict(distiller.student.state_dict())
    found, expected = distiller.loss(inputs, samples), other.loss(inputs, samples)
    for name in ('loss_kd', 'loss_kd_box'):
        assert found[f'era.{name}'].item() == expected[f'kd.{name}'].item() > 1e-3


@pytest.mark.parametrize('make, weight', [(tiny_retinanet, 20.0), (tiny_gfl, 1.0), (tiny_faster_rcnn, 20.0)])
def test_the_weight_of_boxes_follows_their_form(make, weight, tmp_path):
    teacher = save_random_teacher(make(16, 24), tmp_path)
    method = build_distiller(make(), teacher, [dict(type='mmrkd.ERA')]).methods[0]
    assert method.mimicry.w_box == weight and method.w_kd == 0.2


def test_boxes_need_a_term_on_logits_beside_them(wide_retinanet):
    distiller, inputs, samples = build(wide_retinanet, w_kd=0.0, w_box=None, twi_on='last')
    assert not any(name.startswith('era.loss_kd') for name in distiller.loss(inputs, samples))


def test_features_are_compared_in_units_of_everything_seen_of_the_teacher(wide_retinanet):
    distiller, inputs, samples = build(wide_retinanet, fixed=False, twi_on='none')
    batches = [inputs, inputs.flip(-1).flip(1) * 1.5]
    reference = Reference(distiller, inputs, samples, wide_retinanet)
    with torch.no_grad():
        seen = list(zip(*[reference.model.extract_feat(batch) for batch in batches]))
    for count, batch in enumerate(batches, start=1):
        found = distiller.loss(batch, samples)
        now = Reference(distiller, batch, samples, wide_retinanet)
        targets = []
        for level, feats in enumerate(seen):
            values = torch.cat(feats[:count]).transpose(0, 1).flatten(1)
            mean, std = values.mean(1), values.std(1, unbiased=False)
            targets.append((now.f_t[level] - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1))
        expected = WEIGHTS['w_feat'] * level_mse(now.steps()[0], targets)
        assert found['era.loss_feat'].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize('twi_on, judged', [('ends', (0, 2)), ('none', ())])
def test_loss_dictionary_of_faster_rcnn_is_the_formula(wide_faster_rcnn, twi_on, judged):
    distiller, inputs, samples = build(wide_faster_rcnn, tiny_faster_rcnn(), double=False, twi_on=twi_on)
    reference = Reference(distiller, inputs, samples, wide_faster_rcnn, double=False)
    assert len(reference.f_s) == 5
    weights = {name: WEIGHTS[name] for name in ('w_kd', 'w_feat', 'w_res', 'w_twi')}
    expected = era_losses(
        *reference.steps(),
        reference.targets(),
        reference.judge_two_stage,
        None,
        None,
        None,
        SCALES,
        judged=judged,
        **weights,
    )
    assert_losses(distiller.loss(inputs, samples), expected, rel=1e-4)


def test_a_head_of_another_family_judges_the_levels_that_match(wide_faster_rcnn):
    """RetinaNet has strides 8 to 32, Faster R-CNN 4 to 64: the rest stays the teacher's own."""
    distiller, inputs, samples = build(wide_faster_rcnn, double=False, twi_on='last')
    reference = Reference(distiller, inputs, samples, wide_faster_rcnn, double=False)
    assert reference.index == [1, 2, 3]
    expected = SCALES[1] / 2 * WEIGHTS['w_twi'] * reference.judge_two_stage(reference.last())[0]
    assert distiller.loss(inputs, samples)['era.loss_twi_2'].item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_teacher_with_a_level_more(deep_retinanet):
    distiller, inputs, samples = build(deep_retinanet, twi_on='ends')
    reference = Reference(distiller, inputs, samples, deep_retinanet)
    assert reference.index == [0, 1, 2] and len(reference.all_feats) == 4
    found = distiller.loss(inputs, samples)
    expected = SCALES[1] / 2 * WEIGHTS['w_twi'] * reference.judge(reference.last())[0]
    assert found['era.loss_twi_2'].item() == pytest.approx(expected.item(), rel=1e-6)
    assert tuple(distiller.variants) == ('student', 'teacher')
    for variant in ('integrated', 'blend'):
        with pytest.raises(ValueError, match='levels that the student does not have, .*: 4 levels, 3 of them'):
            distiller.set_variant(variant)


def test_a_student_with_a_level_more(wide_retinanet):
    student = tiny_retinanet(strides=(8, 16, 32, 64))
    distiller, inputs, samples = build(wide_retinanet, student, double=False, twi_on='last')
    reference = Reference(distiller, inputs, samples, wide_retinanet, double=False)
    assert len(reference.f_s) == 3
    expected = SCALES[1] / 2 * WEIGHTS['w_twi'] * reference.judge(reference.last())[0]
    assert distiller.loss(inputs, samples)['era.loss_twi_2'].item() == pytest.approx(expected.item(), rel=1e-5)
    assert_predicts_as_integrated(distiller, inputs, samples, wide_retinanet)


def assert_same_instances(found, expected):
    assert len(expected) > 0
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.bboxes, expected.bboxes, rtol=1e-4, atol=1e-2)
    assert torch.equal(found.labels, expected.labels)


def assert_predicts_as_integrated(distiller, inputs, samples, teacher):
    distiller.eval().set_variant('integrated')
    reference = Reference(distiller, inputs, samples, teacher, double=False)
    feats, model = reference.for_head(reference.last()), reference.model
    with torch.no_grad():
        if hasattr(model, 'roi_head'):
            proposals = model.rpn_head.predict(feats, samples, rescale=False)
            expected = model.roi_head.predict(feats, proposals, samples, rescale=True)
        else:
            expected = model.bbox_head.predict(feats, samples, rescale=True)
    model = distiller.teacher.model
    model.backbone, model.neck = None, None  # to run the teacher's body would be an error
    for sample, instances in zip(distiller.predict(inputs, samples), expected):
        assert_same_instances(sample.pred_instances, instances)


def twice_as_large(samples):
    """As if the image had been enlarged for the network: predictions have to be scaled back."""
    for sample in samples:
        sample.set_metainfo(dict(scale_factor=(2.0, 2.0), ori_shape=(48, 48)))


def test_integrated_prediction_of_retinanet(wide_retinanet):
    distiller, inputs, samples = build(wide_retinanet, double=False)
    twice_as_large(samples)
    assert_predicts_as_integrated(distiller, inputs, samples, wide_retinanet)


def test_integrated_prediction_of_faster_rcnn(wide_faster_rcnn):
    distiller, inputs, samples = build(wide_faster_rcnn, tiny_faster_rcnn(), double=False)
    twice_as_large(samples)
    assert_predicts_as_integrated(distiller, inputs, samples, wide_faster_rcnn)


def test_blend_mixes_dense_outputs_before_nms(wide_retinanet):
    distiller, inputs, samples = build(wide_retinanet, double=False, alpha=0.3)
    twice_as_large(samples)
    distiller.eval().set_variant('blend')
    reference = Reference(distiller, inputs, samples, wide_retinanet, double=False)
    student_head, metas = distiller.student.bbox_head, [sample.metainfo for sample in samples]
    with torch.no_grad():
        own = student_head(reference.f_s)
        theirs = reference.model.bbox_head(reference.for_head(reference.last()))
        mixed = [[0.7 * a + 0.3 * b for a, b in zip(p, q)] for p, q in zip(own, theirs)]
        expected = student_head.predict_by_feat(*mixed, batch_img_metas=metas, rescale=True)
    for sample, instances in zip(distiller.predict(inputs, samples), expected):
        assert_same_instances(sample.pred_instances, instances)


def other_anchors(tmp_path):
    cfg = tiny_retinanet(16, 24)
    cfg['bbox_head']['anchor_generator']['scales_per_octave'] = 2
    return save_random_teacher(cfg, tmp_path)


def test_blend_is_refused_where_the_heads_differ(tmp_path):
    distiller, *_ = build(other_anchors(tmp_path), double=False)
    assert tuple(distiller.variants) == ('student', 'teacher', 'integrated')
    with pytest.raises(ValueError, match=r'blend needs heads that line up, but they differ: .*priors: student'):
        distiller.set_variant('blend')


def test_blend_is_refused_for_two_stages(wide_faster_rcnn):
    distiller, *_ = build(wide_faster_rcnn, tiny_faster_rcnn(), double=False)
    assert tuple(distiller.variants) == ('student', 'teacher', 'integrated')
    with pytest.raises(ValueError, match='blend needs a one-stage detector'):
        distiller.set_variant('blend')


def test_a_weight_for_the_kl_is_refused_where_the_heads_differ(tmp_path):
    with pytest.raises(HeadsDiffer, match=r'the KL term of ERA \(w_kd\) compares.*do not line up: outputs: student'):
        build(other_anchors(tmp_path), double=False, w_kd=2.0)


def test_without_one_the_judgement_has_no_kl_either(tmp_path):
    teacher = other_anchors(tmp_path)
    distiller, inputs, samples = build(teacher, double=False, w_kd=None, twi_kd=True, twi_on='ends')
    found = distiller.loss(inputs, samples)
    assert 'era.loss_kd' not in found
    # The judgement is the task loss of the teacher's own head alone, and not half of it.
    reference = Reference(distiller, inputs, samples, teacher, double=False)
    feats = reference.for_head(reference.steps()[0])
    expected = WEIGHTS['w_twi'] * task_total(reference.model.bbox_head.loss(feats, samples))
    assert found['era.loss_twi_0'].item() == pytest.approx(expected.item(), rel=1e-5)


def test_no_message_where_the_heads_line_up(wide_retinanet, capsys):
    build(wide_retinanet, w_kd=2.0)
    assert 'KL term is off' not in capsys.readouterr().out


def test_a_teacher_that_pads_more(padding_retinanet):
    """96 pixels: 12 cells of stride 8 for the student, 16 for a teacher that pads to multiples of 64."""
    distiller, inputs, samples = build(padding_retinanet, w_kd=1.0, twi_kd=True, twi_on='ends')
    found = distiller.loss(inputs, samples)
    reference = Reference(distiller, inputs, samples, padding_retinanet)
    with torch.no_grad():
        feats = reference.model.extract_feat(torch.nn.functional.pad(inputs, (0, 32, 0, 32)))
    assert [f.shape[-1] for f in feats] == [16, 8, 4] and [f.shape[-1] for f in reference.f_s] == [12, 6, 3]
    reference.f_t = [f[..., : s.shape[-2], : s.shape[-1]] for f, s in zip(feats, reference.f_s)]
    initial, _ = reference.steps()
    expected = WEIGHTS['w_feat'] * level_mse(initial, reference.targets())
    assert found['era.loss_feat'].item() == pytest.approx(expected.item(), rel=1e-6)
    z_t = flat(reference.model.bbox_head(reference.f_t)[0])
    divergence = bernoulli_kl(z_t, flat(distiller.student.bbox_head(reference.f_s)[0]), 1.0)
    assert found['era.loss_kd'].item() == pytest.approx(divergence.item(), rel=1e-4)
    task, logits = reference.judge(initial)
    expected = (WEIGHTS['w_twi'] * task + bernoulli_kl(z_t, logits, 1.0)) / 2
    assert found['era.loss_twi_0'].item() == pytest.approx(expected.item(), rel=1e-5)


def test_other_classes_are_refused(tmp_path):
    cfg = tiny_retinanet(16, 24)
    cfg['bbox_head']['num_classes'] = 7
    retinanet = save_random_teacher(cfg, tmp_path, seed=1)
    faster_rcnn = save_random_teacher(tiny_faster_rcnn(16, 24, num_classes=7), tmp_path, seed=2)
    for teacher, student in ((retinanet, tiny_retinanet()), (faster_rcnn, tiny_faster_rcnn())):
        with pytest.raises(ValueError, match='the student has 4 classes, the teacher 7'):
            build(teacher, student, twi_on='ends')
    distiller, inputs, samples = build(retinanet, twi_on='none')
    assert distiller.loss(inputs, samples)['era.loss_feat'].item() > 0


def on_stages(stages, *size):
    """RetinaNet on two stages of the backbone, strides 4, 8 or 16, 32."""
    strides = [4 * 2**stage for stage in stages]
    cfg = tiny_retinanet(*size)
    cfg['backbone']['out_indices'] = stages
    width = cfg['backbone']['base_channels']
    cfg['neck'].update(in_channels=[width * 2**s for s in stages], start_level=0, num_outs=2)
    cfg['bbox_head']['anchor_generator']['strides'] = strides
    return cfg


def test_no_common_stride_is_refused(tmp_path):
    teacher = save_random_teacher(on_stages((2, 3), 16, 24), tmp_path)
    with pytest.raises(ValueError) as error:
        build(teacher, on_stages((0, 1)))
    message = str(error.value)
    assert 'no feature level with the same stride' in message
    assert 'stride 4, 16ch; stride 8, 16ch' in message and 'stride 16, 24ch; stride 32, 24ch' in message


@pytest.mark.parametrize('detach_student', [False, True])
def test_what_each_term_trains(wide_retinanet, detach_student):
    distiller, inputs, samples = build(wide_retinanet, w_kd=1.0, twi_on='ends', detach_student=detach_student)
    student, neck = distiller.student, distiller.methods[0].neck
    modules = dict(backbone=student.backbone, fpn=student.neck, head=student.bbox_head, P=neck.projection)
    modules.update({f'branch {i + 1}': neck.branches[i] for i in range(2)})
    parts = {name: list(module.parameters()) for name, module in modules.items()}
    losses = distiller.loss(inputs, samples)
    body = {'backbone', 'fpn'}
    through = set() if detach_student else body
    assert reached(losses['era.loss_kd'], parts) == body | {'head'}
    assert reached(losses['era.loss_feat'], parts) == body | {'P'}
    assert reached(losses['era.loss_res_1'], parts) == through | {'branch 1'}
    assert reached(losses['era.loss_res_2'], parts) == through | {'branch 2'}
    assert reached(losses['era.loss_twi_0'], parts) == body | {'P'}
    projection = set() if detach_student else {'P'}
    assert reached(losses['era.loss_twi_2'], parts) == through | projection | {'branch 1', 'branch 2'}


class TestJudgedInTurn:
    """``twi_every=3``: the sums are judged in the steps 0, 3, 6, ..., three times as strongly."""

    def test_on_average_it_is_what_every_step_would_be(self, wide_retinanet):
        always, inputs, samples = build(wide_retinanet, twi_on='ends')
        seldom, *_ = build(wide_retinanet, twi_on='ends', twi_every=3)
        seldom.load_state_dict(always.state_dict(), strict=False)
        expected, names = always.loss(inputs, samples), ('era.loss_twi_0', 'era.loss_twi_2')
        for step in range(5):
            found = seldom.loss(inputs, samples)
            assert found.keys() == expected.keys()
            for name, value in found.items():
                factor = (1 if name not in names else 3 if step % 3 == 0 else 0) if name.startswith('era') else 1
                terms = [sum(v) if isinstance(v, list) else v for v in (value, expected[name])]
                assert terms[0].item() == pytest.approx(factor * terms[1].item(), rel=1e-6), (step, name)

    def test_in_between_the_teachers_head_does_not_run(self, wide_retinanet):
        distiller, inputs, samples = build(wide_retinanet, twi_every=2, twi_on='last')
        counts = [count_step(distiller, lambda: distiller.loss(inputs, samples))[0].teacher_heads for _ in range(3)]
        assert counts == [1, 0, 1]

    @pytest.mark.parametrize(
        'weights', [dict(), dict(w_feat=0.0), dict(w_res=0.0), dict(w_feat=0.0, w_res=0.0)], ids=str
    )
    def test_what_has_no_gradient_in_between_is_idle(self, wide_retinanet, weights):
        distiller, inputs, samples = build(wide_retinanet, double=False, twi_every=2, **weights)
        for step in range(3):
            distiller.zero_grad()
            distiller.parse_losses(distiller.loss(inputs, samples))[0].backward()
            without = {id(p) for p in distiller.parameters() if p.requires_grad and p.grad is None}
            assert {id(p) for p in distiller.methods[0].idle_parameters()} == without, step
            assert bool(without) == bool(weights and step == 1)

    def test_a_resumed_run_goes_on_with_the_same_turn(self, wide_retinanet):
        distiller, inputs, samples = build(wide_retinanet, twi_every=3, twi_on='last')
        for _ in range(2):
            distiller.loss(inputs, samples)
        state = distiller.state_dict()
        saved = {key: value for key, value in state.items() if key.startswith('methods.')}
        other, *_ = build(wide_retinanet, twi_every=3, twi_on='last')
        restored = restored_state(saved, other.methods, describe_methods(distiller.methods))
        other.load_state_dict({**state, **restored})
        judged = [other.loss(inputs, samples)['era.loss_twi_2'].item() > 0 for _ in range(3)]
        assert judged == [False, True, False] and other.methods[0].steps.count == 5

    def test_without_it_nothing_is_counted_or_saved(self, wide_retinanet):
        distiller, *_ = build(wide_retinanet)
        assert not [key for key in distiller.state_dict() if 'steps' in key]

    def test_less_than_every_step_is_refused(self, wide_retinanet):
        with pytest.raises(ValueError, match='twi_every must be at least 1, found 0'):
            build(wide_retinanet, twi_every=0)


class TestSomeLevels:
    @pytest.mark.parametrize('levels', [(1, 2), (-1, 1)])
    def test_the_others_are_the_teachers_own(self, wide_retinanet, levels):
        distiller, inputs, samples = build(wide_retinanet, levels=levels, standardize=False)
        reference = Reference(distiller, inputs, samples, wide_retinanet)
        for name in ('f_s', 'f_t', 'index', 'scale'):
            setattr(reference, name, getattr(reference, name)[1:])
        expected = era_losses(
            *reference.steps(),
            reference.targets(),
            reference.judge,
            None,
            None,
            None,
            SCALES,
            judged=(0, 2),
            **{name: WEIGHTS[name] for name in ('w_kd', 'w_feat', 'w_res', 'w_twi')},
            twi_kd=False,
        )
        assert_losses(distiller.loss(inputs, samples), expected, rel=1e-6, abs=1e-6)
        assert distiller.methods[0].neck.num_levels == 2

    def test_there_is_no_integrated_model_then(self, wide_retinanet):
        distiller, *_ = build(wide_retinanet, levels=(1, 2))
        assert set(distiller.variants) == {'student', 'teacher'}
        with pytest.raises(ValueError, match='or that ERA does not work on: 3 levels, 2 of them matched'):
            distiller.set_variant('integrated')

    @pytest.mark.parametrize('levels', [(3,), (), (0, 0), (0, -3)])
    def test_a_level_that_is_not_there_is_refused(self, wide_retinanet, levels):
        with pytest.raises(ValueError, match='levels: expected different places among the 3 matched levels'):
            build(wide_retinanet, levels=levels)


@pytest.mark.parametrize('two_stages', [False, True])
def test_the_teacher_stays_as_it_is(wide_retinanet, wide_faster_rcnn, two_stages):
    teacher, student = (wide_faster_rcnn, tiny_faster_rcnn()) if two_stages else (wide_retinanet, tiny_retinanet())
    distiller, inputs, samples = build(teacher, student, double=False, fixed=False, w_kd=1.0, twi_on='all')
    model, before = distiller.teacher.model, distiller.teacher.fingerprint()
    optimizer = torch.optim.AdamW([p for p in distiller.parameters() if p.requires_grad], lr=1e-3)
    weights = distiller.student.backbone.conv1.weight.detach().clone()
    for _ in range(2):
        distiller.train()
        assert not any(module.training for module in model.modules())
        optimizer.zero_grad()
        distiller.parse_losses(distiller.loss(inputs, samples))[0].backward()
        assert [n for n, p in distiller.named_parameters() if p.requires_grad and p.grad is None] == []
        optimizer.step()
    assert not torch.equal(weights, distiller.student.backbone.conv1.weight)
    assert distiller.teacher.fingerprint() == before
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


@pytest.mark.parametrize('twi_on', ['all', 'ends', 'last', 'none'])
@pytest.mark.parametrize('weights', [dict(), dict(w_feat=0.0), dict(w_res=0.0), dict(w_feat=0.0, w_res=0.0)], ids=str)
def test_every_trainable_parameter_gets_a_gradient(wide_retinanet, twi_on, weights):
    """One that gets none would make distributed training wait for ever."""
    distiller, inputs, samples = build(
        wide_retinanet, double=False, twi_on=twi_on, detach_student=True, neck=dict(norm_per_level=True), **weights
    )
    distiller.parse_losses(distiller.loss(inputs, samples))[0].backward()
    assert [n for n, p in distiller.named_parameters() if p.requires_grad and p.grad is None] == []
