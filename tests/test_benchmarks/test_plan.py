"""What the repository's own plan says can be run."""

import inspect
import os.path as osp

import pytest
from mmengine.config import Config

from benchmarks.plan import PAIRS, ROWS
from benchmarks.runs import ROOT, TEACHER, Run, teacher_of, wanted_runs
from mmrkd.engine.prepare import is_distillation
from mmrkd.models.methods.arguments import check_arguments
from mmrkd.registry import MODELS


@pytest.mark.parametrize('name', PAIRS)
def test_the_configs_of_a_pair_belong_together(name):
    pair, (distilled, student, teacher) = PAIRS[name], _configs(name)
    assert is_distillation(distilled) and not is_distillation(student) and not is_distillation(teacher)
    assert distilled.model.student.to_dict() == student.model.to_dict()
    assert osp.samefile(distilled.model.teacher.cfg, osp.join(ROOT, pair.teacher))
    same = ('train_dataloader', 'optim_wrapper', 'val_evaluator')
    assert all(distilled[key] == student[key] for key in same)


@pytest.mark.parametrize('name', ROWS)
def test_methods_and_their_arguments_exist(name):
    row = ROWS[name]
    assert row.methods and set(row.methods) <= {'detection', 'classification', *PAIRS}
    for methods in row.methods.values():
        for method in methods:
            check_arguments(MODELS.get(method['type']), method)
    for task, (argument, values) in row.search.items():
        kind = MODELS.get(row.methods[task][0]['type'])
        assert argument in inspect.signature(kind).parameters and len(values) == len(set(values)) > 1


def test_every_baseline_that_is_searched_is_searched_with_as_many_values():
    counts = {len(values) for row in ROWS.values() for _, values in row.search.values()}
    assert len(counts) <= 1


def test_the_run_is_written_as_a_config_that_says_the_same(tmp_path):
    run = Run('cifar10-tenth', 'era', seed=2)
    run.write_config(str(tmp_path / 'run.py'), '/some/teacher.pth')
    cfg = Config.fromfile(str(tmp_path / 'run.py'))
    assert cfg.model.methods == [dict(type='mmrkd.ERA')] and cfg.model.teacher.ckpt == '/some/teacher.pth'
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler.T_max == 60 and cfg.randomness.seed == 2
    assert tuple(cfg.val_cfg.variants) == ('student', 'integrated')


@pytest.mark.parametrize('name', [name for name, row in ROWS.items() if row.configs])
def test_a_row_with_a_config_of_its_own_has_the_models_of_its_pair(name, tmp_path):
    for pair in ROWS[name].configs:
        own, usual = (Run(pair, row) for row in (name, 'kd'))
        cfgs = []
        for run in (own, usual):
            run.write_config(str(tmp_path / f'{run.row}.py'), '/some/teacher.pth')
            cfgs.append(Config.fromfile(str(tmp_path / f'{run.row}.py')))
        assert cfgs[0].model.methods == own.methods
        same = ('student', 'teacher')
        assert all(cfgs[0].model[part] == cfgs[1].model[part] for part in same)
        assert cfgs[0].val_dataloader == cfgs[1].val_dataloader and cfgs[0].train_cfg == cfgs[1].train_cfg
        assert cfgs[0].train_dataloader != cfgs[1].train_dataloader


def test_pairs_with_one_teacher_share_it():
    assert teacher_of(Run('bccd-gfl', 'era')) == Run('bccd', TEACHER)
    assert teacher_of(Run('cifar10-tenth', 'era')) == Run('cifar10-tenth', TEACHER)


def test_runs_are_wanted_once_each():
    runs = wanted_runs(PAIRS, list(ROWS), (0, 1))
    assert len({run.name for run in runs}) == len(runs)
    assert not any(run.row == 'dist' and PAIRS[run.pair].task == 'detection' for run in runs)


def _configs(name):
    pair = PAIRS[name]
    return [Config.fromfile(osp.join(ROOT, path)) for path in (pair.config, pair.student, pair.teacher)]
