"""What a run measured says why distillation did not help: each cause alone, at both sides of its threshold."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mmrkd.diagnosis import CAUSES, Facts, describe, diagnose, table

DOCS = Path(__file__).resolve().parents[1] / 'docs' / 'diagnosis.md'

HEALTHY = Facts(
    metric='accuracy/top1',
    task='classification',
    val_images=256,
    student_val=70.0,
    teacher_val=80.0,
    train_images=256,
    student_train=80.0,
    teacher_train=90.0,
    gradient_shares={'era': [0.9, 0.2, 0.1]},  # the median counts: 0.2
    residual_explained={'era': [0.0, 0.3, 0.4]},  # that of the later half: 0.35
    curve=[[1, 40.0], [2, 60.0], [3, 69.0], [4, 71.0], [5, 70.0]],
    peak_rate=0.1,
    final_rate=0.001,
)


def names(**changes):
    return [finding.name for finding in diagnose(replace(HEALTHY, **changes))]


def test_nothing_is_found_where_nothing_is_wrong():
    assert diagnose(HEALTHY) == []
    assert 'none was found' in describe(HEALTHY) and '20.0% of the gradient' in describe(HEALTHY)


def test_what_was_not_measured_gives_no_finding():
    assert diagnose(Facts()) == []
    assert 'Measured' not in describe(Facts())


SIDES = [  # cause, facts that have it, facts beside it that do not
    ('teacher-no-better', dict(student_val=79.1), dict(student_val=78.9)),
    ('student-fits-training', dict(student_train=85.1), dict(student_train=84.9)),
    ('student-fits-training', dict(student_train=98.0, student_val=None), dict(student_train=97.9, student_val=None)),
    (
        'student-fits-training',
        dict(task='detection', student_val=None, student_train=90.0),
        dict(task='detection', student_val=None, student_train=89.9),
    ),
    ('distillation-weak', dict(gradient_shares={'kd': [0.0099]}), dict(gradient_shares={'kd': [0.0101]})),
    ('distillation-weak', dict(gradient_shares={'a': [0.2], 'b': [0.0, 0.5, 0.0]}), dict(gradient_shares={'a': []})),
    ('distillation-dominant', dict(gradient_shares={'kd': [0.61]}), dict(gradient_shares={'kd': [0.59]})),
    (
        'distillation-dominant',
        dict(gradient_shares={'a': [0.31], 'b': [0.30]}),
        dict(gradient_shares={'a': [0.30], 'b': [0.29]}),
    ),
    ('residual-unexplained', dict(residual_explained={'era': [0.099]}), dict(residual_explained={'era': [0.101]})),
    (
        'residual-unexplained',
        dict(residual_explained={'era': [0.5, -0.2]}),
        dict(residual_explained={'era': [-1, 0.2]}),
    ),
    ('teacher-disagrees', dict(teacher_train=74.9), dict(teacher_train=75.1)),
    ('teacher-disagrees', dict(teacher_train=49.9, teacher_val=None), dict(teacher_train=50.1, teacher_val=None)),
    (
        'teacher-disagrees',
        dict(task='detection', teacher_train=9.9, teacher_val=None),
        dict(task='detection', teacher_train=10.1, teacher_val=None),
    ),
    (
        'not-converged',
        dict(curve=[[1, 40.0], [2, 60.0], [3, 69.0], [4, 68.0], [5, 70.1]]),
        dict(curve=[[1, 40.0], [2, 60.0], [3, 69.0], [4, 68.0], [5, 69.9]]),
    ),
    ('not-converged', dict(final_rate=0.021), dict(final_rate=0.019)),
]


@pytest.mark.parametrize('cause, bad, good', SIDES)
def test_each_cause_alone(cause, bad, good):
    assert names(**bad) == [cause]
    assert names(**good) == []


def test_the_last_fifth_is_one_of_five_evaluations_and_two_of_ten():
    values = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 61.0, 62.0, 62.9, 62.0]
    assert names(curve=[[i, v] for i, v in enumerate(values)]) == []
    assert names(curve=[[i, v] for i, v in enumerate([*values[:8], 63.1, 62.0])]) == ['not-converged']
    assert names(curve=[[1, 10.0], [2, 20.0], [3, 30.0], [4, 40.0]]) == [], 'four are too few to tell'


def test_sentences_have_the_numbers_and_what_to_try():
    (finding,) = diagnose(replace(HEALTHY, student_val=81.5))
    assert finding.numbers == dict(teacher_val=80.0, student_val=81.5, lead=-1.5)
    assert finding.sentence == (
        'on 256 validation images the teacher has accuracy/top1 80.0, the student 81.5: a lead of -1.5 points.'
    )
    assert finding.advice == CAUSES['teacher-no-better'].advice and finding.advice in str(finding)

    shares = {'era': [0.5, 0.5], 'kd': [0.3]}
    (finding,) = diagnose(replace(HEALTHY, gradient_shares=shares))
    assert finding.numbers == dict(era=0.5, kd=0.3, total=0.8)
    assert '80%' in finding.sentence and 'era alone 50%' in finding.sentence

    (finding,) = diagnose(replace(HEALTHY, final_rate=0.1, curve=[[i, 10.0 * i] for i in range(5)]))
    assert finding.numbers == dict(rise=10.0, rate_left=1.0)
    assert 'rose by 10.0 points' in finding.sentence and '100% of its highest' in finding.sentence

    (finding,) = diagnose(replace(HEALTHY, residual_explained={'era': [-0.5]}))
    assert finding.numbers == dict(era=-0.5) and 'explain 0.0% of the variance' in finding.sentence


def test_several_causes_stand_in_the_order_of_the_table():
    everything = dict(
        student_val=82.0,
        student_train=99.0,
        teacher_train=60.0,
        gradient_shares={'a': [0.001], 'b': [0.9]},
        residual_explained={'a': [0.0]},
        final_rate=0.1,
    )
    assert names(**everything) == list(CAUSES)
    text = describe(replace(HEALTHY, **everything, unmeasured={'curve': 'ValueError: no'}))
    assert text.startswith('# Why did it not help?') and text.count('  try: ') == len(CAUSES)
    assert 'Not measured:\n\n- curve: ValueError: no' in text


def test_facts_are_a_json_object_that_gives_them_back():
    again = Facts(**json.loads(HEALTHY.to_json()))
    assert again == HEALTHY
    assert Facts(**json.loads(json.dumps(asdict(HEALTHY)))) == HEALTHY


def test_the_page_has_the_causes_as_they_are():
    text = DOCS.read_text()
    assert table() in text
    for name in CAUSES:
        assert text.count(f'| `{name}` |') == 2, 'once what it is, once the number'
