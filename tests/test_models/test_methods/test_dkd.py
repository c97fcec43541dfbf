import pytest
import torch
from reference import affine, cross_entropy, reached, second_teacher

from mmrkd.models.losses import decoupled_kl, standardize_logits
from mmrkd.models.methods import DKD
from mmrkd.testing import (
    build_distiller,
    classification_batch,
    detection_batch,
    model_inputs,
    save_random_teacher,
    tiny_classifier,
    tiny_gfl,
    tiny_retinanet,
)


def build(teacher, batch=None, student=None, **dkd):
    student = student or tiny_classifier(8)
    distiller = build_distiller(student, teacher, [dict(type='mmrkd.DKD', **dkd)]).double().train()
    inputs, samples = model_inputs(distiller, batch or classification_batch())
    return distiller, inputs.double(), samples


def logits(distiller, teacher, inputs):
    plain = second_teacher(teacher)
    z_t = plain.head(plain.extract_feat(inputs))
    feats = distiller.student.extract_feat(inputs)[0]
    return affine(feats, dict(distiller.student.named_parameters()), 'head.fc'), z_t


def mixed_samples(samples):
    for sample in samples:
        sample.set_gt_score(torch.tensor([0.6, 0.4, 0.0, 0.0]))
    return samples


@pytest.mark.parametrize('dkd', [{}, dict(alpha=0.5, beta=2.0, tau=1.0, w_task=0.1)], ids=str)
def test_terms_and_gradients(wide_classifier, dkd):
    distiller, inputs, samples = build(wide_classifier, **dkd)
    z_s, z_t = logits(distiller, wide_classifier, inputs)
    labels = torch.cat([sample.gt_label for sample in samples])
    target, other = decoupled_kl(z_s, z_t, labels, dkd.get('tau', 4.0))
    expected = {'tckd': dkd.get('alpha', 1.0) * target, 'nckd': dkd.get('beta', 8.0) * other}
    found = distiller.loss(inputs, samples)
    assert set(found) == {'loss', 'dkd.loss_tckd', 'dkd.loss_nckd'}
    assert found['loss'].item() == pytest.approx(dkd.get('w_task', 1.0) * cross_entropy(z_s, labels).item(), rel=1e-6)
    parts = dict(student=list(distiller.student.parameters()), teacher=list(distiller.teacher.model.parameters()))
    assert not any(p.requires_grad for p in parts.pop('teacher'))
    for name, value in expected.items():
        assert found[f'dkd.loss_{name}'].item() == pytest.approx(value.item(), rel=1e-6) and value > 1e-4
        assert reached(found[f'dkd.loss_{name}'], parts) == {'student'}


def test_the_choice_of_the_teacher_and_standardised_logits(wide_classifier):
    distiller, inputs, samples = build(wide_classifier, target='teacher', standardize_logits=True, tau=2.0, beta=1.0)
    z_s, z_t = logits(distiller, wide_classifier, inputs)
    expected = decoupled_kl(standardize_logits(z_s), standardize_logits(z_t), z_t.argmax(1), 2.0)
    for batch in (samples, mixed_samples(samples)):
        found = distiller.loss(inputs, batch)
        assert found['dkd.loss_tckd'].item() == pytest.approx(expected[0].item(), rel=1e-6)
        assert found['dkd.loss_nckd'].item() == pytest.approx(expected[1].item(), rel=1e-6)
    plain = decoupled_kl(z_s, z_t, z_t.argmax(1), 2.0)
    assert abs(plain[1] - expected[1]) > 1e-3


def test_mixed_labels_have_no_class(wide_classifier):
    distiller, inputs, samples = build(wide_classifier)
    with pytest.raises(ValueError, match="target='teacher'.*without mixing"):
        distiller.loss(inputs, mixed_samples(samples))


def test_it_trains_nothing_of_its_own_and_moves_no_teacher(wide_classifier):
    distiller, inputs, samples = build(wide_classifier)
    before = distiller.teacher.fingerprint()
    distiller.parse_losses(distiller.loss(inputs, samples))[0].backward()
    assert not list(distiller.methods.parameters()) and tuple(distiller.variants) == ('student', 'teacher')
    assert distiller.teacher.fingerprint() == before


def test_weights_of_zero_turn_it_off(wide_classifier):
    distiller, inputs, samples = build(wide_classifier, alpha=0.0, beta=0.0)
    assert set(distiller.loss(inputs, samples)) == {'loss'}
    for dkd, active in ((dict(alpha=0.0), True), (dict(beta=0.0), True), (dict(alpha=0.0, beta=0.0), False)):
        assert build(wide_classifier, **dkd)[0].methods[0].active is active


@pytest.mark.parametrize(
    'dkd, message',
    [
        (dict(tau=0.0), 'a number > 0 expected, found tau=0.0'),
        (dict(beta=-1.0), 'weights must be >= 0.*beta=-1.0'),
        (dict(alpha=-1.0), 'alpha=-1.0'),
        (dict(target='student'), "target must be one of.*found 'student'"),
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(dkd, message):
    with pytest.raises(ValueError, match=message):
        DKD(**dkd)


def test_detectors_and_independent_scores_are_refused(tmp_path, wide_retinanet):
    with pytest.raises(
        ValueError, match='DKD compares a softmax .* the student has none: RetinaNet has no second stage'
    ):
        build(wide_retinanet, detection_batch(), tiny_retinanet())
    with pytest.raises(ValueError, match='GFL has no second stage'):
        build(wide_retinanet, detection_batch(), tiny_gfl())
    independent = tiny_classifier(8)
    independent['head']['loss'] = dict(type='CrossEntropyLoss', use_sigmoid=True)
    teacher = save_random_teacher(independent, tmp_path)
    with pytest.raises(ValueError, match=r'DKD needs exclusive classes \(softmax\)'):
        build(teacher, student=independent)
    with pytest.raises(ValueError, match='do not line up: sigmoid: student False, teacher True'):
        build(teacher)
    with pytest.raises(ValueError, match='DKD needs a teacher with the classes of the student'):
        build(save_random_teacher(tiny_classifier(8, num_classes=5), tmp_path, seed=1))
