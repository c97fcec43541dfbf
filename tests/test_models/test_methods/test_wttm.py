import pytest
from reference import affine, reached, second_teacher

from mmrkd.models.losses import transformed_matching
from mmrkd.models.methods import WTTM
from mmrkd.testing import (
    build_distiller,
    classification_batch,
    detection_batch,
    model_inputs,
    tiny_classifier,
    tiny_retinanet,
)


def build(teacher, batch=None, student=None, **wttm):
    student = student or tiny_classifier(8)
    distiller = build_distiller(student, teacher, [dict(type='mmrkd.WTTM', **wttm)]).double().train()
    inputs, samples = model_inputs(distiller, batch or classification_batch())
    return distiller, inputs.double(), samples


@pytest.mark.parametrize('wttm', [{}, dict(w_ttm=45.0, gamma=0.1, weighted=False)], ids=str)
def test_term_and_gradients(wide_classifier, wttm):
    distiller, inputs, samples = build(wide_classifier, **wttm)
    plain = second_teacher(wide_classifier)
    z_t = plain.head(plain.extract_feat(inputs))
    z_s = affine(distiller.student.extract_feat(inputs)[0], dict(distiller.student.named_parameters()), 'head.fc')
    expected = transformed_matching(z_s, z_t, wttm.get('gamma', 0.2), wttm.get('weighted', True))
    before = distiller.teacher.fingerprint()
    found = distiller.loss(inputs, samples)
    assert set(found) == {'loss', 'wttm.loss_ttm'}
    assert found['wttm.loss_ttm'].item() == pytest.approx(wttm.get('w_ttm', 4.0) * expected.item(), rel=1e-6)
    assert expected > 1e-4
    assert reached(found['wttm.loss_ttm'], dict(student=list(distiller.student.parameters()))) == {'student'}
    distiller.parse_losses(found)[0].backward()
    assert not list(distiller.methods.parameters()) and distiller.teacher.fingerprint() == before


def test_a_weight_of_zero_turns_it_off(wide_classifier):
    distiller, inputs, samples = build(wide_classifier, w_ttm=0.0)
    assert set(distiller.loss(inputs, samples)) == {'loss'}
    assert WTTM().active


def test_refusals(wide_retinanet):
    with pytest.raises(ValueError, match='a number > 0 expected, found gamma=-0.2'):
        WTTM(gamma=-0.2)
    with pytest.raises(ValueError, match='weights must be >= 0'):
        WTTM(w_ttm=-4.0)
    with pytest.raises(ValueError, match='WTTM compares a softmax over classes'):
        build(wide_retinanet, detection_batch(), tiny_retinanet())
