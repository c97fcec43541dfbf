"""Runs that were made to have a cause, and one that has none: real trainings of a classifier, a few seconds each."""

import json
from copy import deepcopy
from pathlib import Path

import pytest
from mmengine.config import Config

import mmrkd
from mmrkd.diagnosis import Facts, diagnose
from mmrkd.engine.compose import compose
from mmrkd.testing import save_random_teacher, tiny_retinanet

FITNETS = dict(type='mmrkd.FitNets', w_feat=1.0)
ENOUGH = dict(num_images=192)  # images for the student to learn what holds for others, too


def found(runner):
    """Facts of a run, and its findings by name."""
    facts = Facts(**json.loads((Path(runner.work_dir) / 'facts.json').read_text()))
    print(facts)
    assert facts.unmeasured == {}
    return facts, {finding.name: finding.numbers for finding in diagnose(facts)}


def test_a_run_without_any_cause(classify, quarters_teacher):
    facts, findings = found(classify(quarters_teacher(), FITNETS, train=ENOUGH, epochs=4))
    assert findings == {}
    assert facts.teacher_val > facts.student_val > 50 and facts.train_images == 192 and facts.val_images == 64
    assert facts.student_val == facts.curve[-1][1], 'all of the 64 images for validation were looked at'


def test_a_teacher_that_is_no_better_than_its_student(classify, quarters_teacher):
    facts, findings = found(classify(quarters_teacher(steps=8), FITNETS, train=ENOUGH, epochs=6))
    assert facts.teacher_val < facts.student_val
    assert findings['teacher-no-better']['lead'] == facts.teacher_val - facts.student_val


def test_a_detector_with_a_teacher_that_is_no_better(squares, tmp_path):
    teacher = save_random_teacher(tiny_retinanet(16, 24), tmp_path)
    cfg = compose(Config.fromfile(squares.student), squares.teacher, teacher['ckpt'], ['fitnets'])
    cfg = Config(deepcopy(cfg._cfg_dict))
    cfg.merge_from_dict(dict(work_dir=str(tmp_path / 'run'), experiment_name=tmp_path.name, check=False))
    runner = mmrkd.Runner.from_cfg(cfg)
    runner.train()
    facts, findings = found(runner)
    assert facts.metric == 'coco/bbox_mAP' and facts.task == 'detection' and facts.val_images == 8
    assert findings['teacher-no-better']['lead'] < 1 and 'teacher-disagrees' in findings
    assert 'teacher-no-better' in (tmp_path / 'run' / 'diagnosis.md').read_text()


def test_a_student_that_fits_its_training_images(classify, quarters_teacher):
    facts, findings = found(classify(quarters_teacher(), FITNETS, train=dict(num_images=32), epochs=16))
    assert findings['student-fits-training']['gap'] == facts.student_train - facts.student_val > 15
    assert 'teacher-no-better' not in findings and 'teacher-disagrees' not in findings


@pytest.mark.parametrize(
    'method, cause',
    [(dict(FITNETS, w_feat=1e-5), 'distillation-weak'), (dict(FITNETS, w_feat=100), 'distillation-dominant')],
)
def test_a_weight_that_is_too_small_or_too_large(method, cause, classify, quarters_teacher):
    facts, findings = found(classify(quarters_teacher(), method, epochs=1))
    assert findings[cause]['fitnets'] == facts.gradient_shares['fitnets'][0]
    assert len({'distillation-weak', 'distillation-dominant'} & set(findings)) == 1


@pytest.mark.parametrize('epochs, unexplained', [(1, True), (10, False)])
def test_branches_that_had_no_time_to_learn_the_residual(epochs, unexplained, classify, quarters_teacher):
    era = dict(type='mmrkd.ERA', num_branches=1, w_res=5.0, w_feat=1.0, w_kd=0.0, twi_on='none', detach_student=True)
    facts, findings = found(classify(quarters_teacher(), era, epochs=epochs, **{'train_cfg.val_interval': epochs}))
    assert ('residual-unexplained' in findings) == unexplained
    assert len(facts.residual_explained['era']) == (1 if unexplained else 2), 'one of twenty iterations, at least one'


def test_a_teacher_that_contradicts_the_labels(classify, quarters_teacher):
    facts, findings = found(classify(quarters_teacher(), FITNETS, train=dict(shift=1), epochs=1))
    assert findings['teacher-disagrees']['teacher_train'] == facts.teacher_train < 10
    assert facts.teacher_val > 90


def test_a_schedule_that_ends_too_early(classify, quarters_teacher):
    facts, findings = found(classify(quarters_teacher(), FITNETS, schedule=False, lr=0.002))
    assert findings['not-converged']['rate_left'] == 1
    assert len(facts.curve) == 5
