"""The runner goes through the plan, in order, once, and goes on after a kill."""

import json
import os
import shutil
from types import SimpleNamespace

import pytest

from benchmarks import ledger
from benchmarks.data import cifar10_tenth
from benchmarks.run import Workshop, main, work_off
from benchmarks.runs import TEACHER, Run, wanted_runs


class PaperWorkshop(Workshop):
    """One in which a run takes no time; it fails if it is told to."""

    def __init__(self, folder, bad=()):
        super().__init__(str(folder), str(folder / 'out'), 1, str(folder / 'ledger.jsonl'))
        self.begun, self.bad = [], set(bad)

    def digest(self, run):
        return 'abc'

    def start(self, run):
        self.begun.append(run)
        if run not in self.bad:
            os.makedirs(self.folder(run), exist_ok=True)
            with open(os.path.join(self.folder(run), 'result.json'), 'w') as file:
                json.dump({}, file)
        return SimpleNamespace(poll=lambda: 1, returncode=int(run in self.bad))

    def record(self, run):
        return dict(run=run.name, config='abc', test_last={}, val_last={})


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr('time.sleep', lambda seconds: None)


def test_teachers_come_first_and_one_serves_both_pairs(tiny_plan, tmp_path):
    workshop = PaperWorkshop(tmp_path)
    runs = workshop.missing(wanted_runs(['tiny', 'other'], ['alone', 'era'], (0, 1)))
    assert work_off(runs, workshop, jobs=3) == []
    order = [run.name for run in workshop.begun]
    assert sorted(order) == sorted({*order}) and len(order) == 9 and 'other/teacher/seed0' not in order
    assert all(order.index('tiny/teacher/seed0') < order.index(name) for name in order if '/era/' in name)
    assert [record['run'] for record in ledger.read(workshop.path)] == order
    assert workshop.missing(runs) == []


def test_without_their_teacher_students_are_not_begun(tiny_plan, tmp_path):
    workshop = PaperWorkshop(tmp_path, bad=[Run('tiny', TEACHER)])
    failed = work_off(wanted_runs(['tiny'], ['alone', 'era'], (0,)), workshop, jobs=2)
    assert {run.row for run in failed} == {TEACHER, 'era'} and Run('tiny', 'era') not in workshop.begun
    assert [record['run'] for record in ledger.read(workshop.path)] == ['tiny/alone/seed0']


def test_what_the_ledger_has_is_not_run_again(tiny_plan, tmp_path):
    workshop, teacher = PaperWorkshop(tmp_path), Run('tiny', TEACHER)
    first, second = (wanted_runs(['tiny'], ['era'], seeds) for seeds in ((0,), (0, 1)))
    work_off(first, workshop, jobs=1)
    assert workshop.missing(first) == [] and workshop.missing(second) == [Run('tiny', 'era', 1)]
    shutil.rmtree(workshop.folder(teacher))  # its weights are gone: a student that is wanted needs them
    assert workshop.missing(first) == [] and workshop.missing(second) == [teacher, Run('tiny', 'era', 1)]


def test_a_search_has_the_settings_of_its_row(tiny_plan):
    runs = wanted_runs(['tiny'], ['alone', 'hint'], (0,), search=True)
    assert [run.name for run in runs] == [
        'tiny/teacher/seed0',
        'tiny/hint@w_feat=0.2/seed0',
        'tiny/hint@w_feat=5.0/seed0',
    ]
    assert runs[1].methods == [dict(type='mmrkd.FitNets', w_feat=0.2)]


def test_a_tenth(tmp_path):
    for split, count in (('train', 1200), ('test', 3)):
        for name in ('a', 'b'):
            folder = tmp_path / 'cifar10' / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                (folder / f'{index:04d}.jpg').touch()
    for _ in range(2):  # again, it is left as it is
        cifar10_tenth(str(tmp_path), str(tmp_path / 'tenth'))
    found = {part: sorted(os.listdir(tmp_path / 'tenth' / 'cifar10' / part / 'b')) for part in ('train', 'val', 'test')}
    assert [len(names) for names in found.values()] == [500, 500, 3]
    assert (found['train'][-1], found['val'][0]) == ('0499.jpg', '0500.jpg')


@pytest.mark.slow
def test_a_real_run_from_the_plan_to_its_line(tiny_plan, squares, tmp_path, monkeypatch):
    """Trains the teacher and a student with ERA for an epoch, in processes of their own."""
    tests = 'test_dataloader = _base_.val_dataloader\ntest_evaluator = _base_.val_evaluator\ntest_cfg = dict()\n'
    for name in ('student', 'teacher'):
        (tmp_path / f'{name}.py').write_text(f'_base_ = {getattr(squares, name)!r}\n{tests}')
    (tmp_path / 'pair.py').write_text(
        f"_base_ = {str(tmp_path / 'student.py')!r}\nmodel = dict(_delete_=True, type='mmrkd.Distiller', "
        f'student=_base_.model, teacher=dict(cfg={squares.teacher!r}, ckpt={squares.ckpt!r}))\n'
    )
    changed = {'student': 'student.py', 'teacher': 'teacher.py', 'config': 'pair.py'}
    for key, value in changed.items():
        object.__setattr__(tiny_plan.PAIRS['tiny'], key, str(tmp_path / value))
    arguments = [
        '--pairs',
        'tiny',
        '--rows',
        'era',
        '--out',
        str(tmp_path / 'out'),
        '--ledger',
        str(tmp_path / 'l.jsonl'),
    ]
    main(arguments)
    teacher, era = ledger.read(str(tmp_path / 'l.jsonl'))
    assert (teacher['run'], era['run']) == ('tiny/teacher/seed0', 'tiny/era/seed0')
    assert set(era['test_last']) == set(era['val_best']) == set(era['cost']) == {'student', 'integrated'}
    assert era['teacher'] and era['seconds'] > 0 and era['peak_memory_mb'] > 100 and era['epochs'] == 1
    assert era['methods'] == [dict(type='mmrkd.ERA')] and era['cost']['student']['params'] > 1000
    main(arguments)
    assert len(ledger.read(str(tmp_path / 'l.jsonl'))) == 2
