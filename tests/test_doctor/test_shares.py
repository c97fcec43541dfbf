"""The numbers that the check proposes have the share that it promises."""

import re

import pytest

from mmrkd.doctor.report import Report
from mmrkd.doctor.shares import propose_weights
from mmrkd.testing import (
    build_distiller,
    classification_batch,
    detection_batch,
    save_random_teacher,
    tiny_classifier,
    tiny_retinanet,
)

KINDS = dict(
    classifier=(tiny_classifier, classification_batch),
    retinanet=(tiny_retinanet, detection_batch),
)

IMAGES = dict(classifier=8, retinanet=2)  # PKD needs 8 pooled features


def rows_of(kind, teacher, methods):
    model, batch = KINDS[kind]
    distiller = build_distiller(model(), teacher, methods).train()
    report = Report()
    propose_weights(distiller, distiller.data_preprocessor(batch(IMAGES[kind]), True), report)
    return [re.split(r'\s{2,}', line.strip()) for line in '\n'.join(report.lines).splitlines()]


@pytest.mark.parametrize('kind', KINDS)
def test_a_proposed_number_has_the_share(kind, tmp_path):
    teacher = save_random_teacher(KINDS[kind][0](12), tmp_path)
    title, header, row, note = rows_of(kind, teacher, [dict(type='mmrkd.PKD', name='p')])
    assert header == ['weight', 'value', 'share', 'would have a share of 0.1'] and 'balance=0.1' in note[0]
    assert row[:2] == ['p.w_pkd', '10'] and float(row[2]) != pytest.approx(0.1, rel=0.1)
    proposed = float(row[3].removeprefix('w_pkd='))
    row = rows_of(kind, teacher, [dict(type='mmrkd.PKD', name='p', w_pkd=proposed)])[2]
    assert float(row[2]) == pytest.approx(0.1, rel=0.06), 'two digits are proposed'


def test_weights_together_and_terms_that_only_train_the_method(tmp_path):
    teacher = save_random_teacher(tiny_classifier(12), tmp_path)
    cfg = dict(type='mmrkd.ERA', detach_student=True, twi_on='none')
    rows = {row[0]: row[1:] for row in rows_of('classifier', teacher, [cfg])[2:]}
    assert rows['era.w_res'][1:] == ['0', '(no gradient there)']
    assert rows['era, all of them'][1].startswith('each times ')
    assert float(rows['era.w_kd'][1]) > 0 and 'era.w_twi' not in rows


def test_nothing_is_said_of_a_plain_training(tmp_path):
    teacher = save_random_teacher(tiny_classifier(12), tmp_path)
    report = Report()
    distiller = build_distiller(tiny_classifier(), teacher, [dict(type='mmrkd.FitNets', w_feat=0)]).train()
    propose_weights(distiller, distiller.data_preprocessor(classification_batch(), True), report)
    assert report.lines == []
