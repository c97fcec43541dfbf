import pytest
import torch
from reference import affine, reached, second_teacher

from mmrkd.models.losses import decoupled_kl, grouped_kl, standardize_logits
from mmrkd.models.methods import GDKD
from mmrkd.testing import (
    build_distiller,
    classification_batch,
    detection_batch,
    model_inputs,
    tiny_classifier,
    tiny_retinanet,
)


def build(teacher, batch=None, student=None, **gdkd):
    student = student or tiny_classifier(8)
    distiller = build_distiller(student, teacher, [dict(type='mmrkd.GDKD', **gdkd)]).double().train()
    inputs, samples = model_inputs(distiller, batch or classification_batch())
    return distiller, inputs.double(), samples


def logits(distiller, teacher, inputs):
    plain = second_teacher(teacher)
    z_t = plain.head(plain.extract_feat(inputs))
    feats = distiller.student.extract_feat(inputs)[0]
    return affine(feats, dict(distiller.student.named_parameters()), 'head.fc'), z_t


def terms(found):
    return [found[f'gdkd.loss_{name}'].item() for name in ('high', 'top', 'other')]


def divided(z_t, k, worst=False):
    """The upper group, by a threshold."""
    ordered = z_t.sort(dim=1, descending=not worst).values[:, k - 1 : k]
    return z_t <= ordered if worst else z_t >= ordered


@pytest.mark.parametrize(
    'gdkd',
    [
        dict(k=2),
        dict(k=2, weights=(0.5, 2.0, 0.25), tau=1.0),
        dict(k=2, strategy='worst', kl='reverse'),
        dict(k=3, kl='both', standardize_logits=True, tau=2.0),
    ],
    ids=str,
)
def test_two_groups(wide_classifier, gdkd):
    distiller, inputs, samples = build(wide_classifier, **gdkd)
    z_s, z_t = logits(distiller, wide_classifier, inputs)
    top = divided(z_t, gdkd['k'], gdkd.get('strategy') == 'worst')
    assert (top.sum(1) == gdkd['k']).all()
    if gdkd.get('standardize_logits'):
        z_s, z_t = standardize_logits(z_s), standardize_logits(z_t)
    expected = grouped_kl(z_s, z_t, (top, ~top), gdkd.get('tau', 4.0), gdkd.get('kl', 'forward'))
    before = distiller.teacher.fingerprint()
    found = distiller.loss(inputs, samples)
    assert set(found) == {'loss', 'gdkd.loss_high', 'gdkd.loss_top', 'gdkd.loss_other'}
    weighted = [w * term.item() for w, term in zip(gdkd.get('weights', (1, 1, 8)), expected)]
    assert terms(found) == pytest.approx(weighted, rel=1e-6) and max(weighted) > 1e-3
    assert reached(found['gdkd.loss_top'], dict(student=list(distiller.student.parameters()))) == {'student'}
    distiller.parse_losses(found)[0].backward()
    assert not list(distiller.methods.parameters()) and distiller.teacher.fingerprint() == before


def test_three_groups_have_a_middle_one(wide_classifier):
    distiller, inputs, samples = build(wide_classifier, k=3, groups=3, weights=(1.0, 2.0, 8.0))
    z_s, z_t = logits(distiller, wide_classifier, inputs)
    first, top = divided(z_t, 1), divided(z_t, 3)
    high, _, middle, rest = grouped_kl(z_s, z_t, (first, top & ~first, ~top), 4.0)
    assert terms(distiller.loss(inputs, samples)) == pytest.approx([high.item(), 2 * middle.item(), 0.0], rel=1e-6)
    assert rest.item() == 0 and middle > 1e-5


def test_one_class_set_apart_is_dkd_and_labels_are_not_read(wide_classifier):
    distiller, inputs, samples = build(wide_classifier, k=1)
    z_s, z_t = logits(distiller, wide_classifier, inputs)
    target, other = decoupled_kl(z_s, z_t, z_t.argmax(1), 4.0)
    for sample in samples:
        sample.set_gt_score(torch.tensor([0.6, 0.4, 0.0, 0.0]))
    assert terms(distiller.loss(inputs, samples)) == pytest.approx([target.item(), 0.0, 8 * other.item()], rel=1e-6)


def test_weights_of_zero_turn_it_off(wide_classifier):
    distiller, inputs, samples = build(wide_classifier, k=2, weights=(0.0, 0.0, 0.0))
    assert set(distiller.loss(inputs, samples)) == {'loss'}
    assert GDKD(weights=(0.0, 0.0, 8.0)).active


@pytest.mark.parametrize(
    'gdkd, message',
    [
        (dict(tau=-1.0), 'a number > 0 expected, found tau=-1.0'),
        (dict(weights=(1.0, -1.0, 8.0)), 'w_top=-1.0'),
        (dict(weights=(1.0, 8.0)), 'three weights'),
        (dict(k=0), 'k must be at least 1 for 2 groups, found 0'),
        (dict(k=1, groups=3), 'k must be at least 2 for 3 groups, found 1'),
        (dict(groups=4), 'groups must be 2 or 3'),
        (dict(strategy='top'), "strategy one of.*'top'"),
        (dict(kl='backward'), "kl one of.*'backward'"),
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(gdkd, message):
    with pytest.raises(ValueError, match=message):
        GDKD(**gdkd)


def test_pairs_that_do_not_fit_are_refused(wide_classifier, wide_retinanet):
    with pytest.raises(ValueError, match='less than the number of classes, found k=5 for 4 classes'):
        build(wide_classifier)
    with pytest.raises(ValueError, match='GDKD compares a softmax over classes'):
        build(wide_retinanet, detection_batch(), tiny_retinanet())
