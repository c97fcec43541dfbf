"""In which order teachers teach: the rule on given numbers, the measures on small models, the tool from end to end."""

import runpy
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmrkd.engine.teacher_order import described, measure_costs, order_teachers
from mmrkd.models.losses import adaptation_cost
from mmrkd.testing import build_model, detection_batch, save_random_teacher, tiny_retinanet

TOOL = Path(__file__).resolve().parents[2] / 'tools/order_teachers.py'


def numbers(scores, **near):
    """Costs of models on a line: the distance of two is what it costs to adapt one to the other."""
    places = {'student': 0.0, **near}
    return {(a, b): abs(places[a] - places[b]) for a in places for b in near if a != b}, {'student': 30.0, **scores}


class TestRule:
    def test_the_worked_example(self):
        costs = {('student', 't1'): 0.034286, ('t1', 't2'): 0.019825, ('student', 't2'): 0.081633, ('t2', 't1'): 0.05}
        found = order_teachers(costs, dict(student=36.0, t1=38.0, t2=40.0))
        assert found.names == ['t1', 't2']
        assert found.reasons[0] == 't2 is the last: it is the most accurate (40)'
        assert 't1 comes before t2' in found.reasons[1] and '(0.01982)' in found.reasons[1]

    def test_three_on_the_way(self):
        costs, scores = numbers(dict(far=40.0, near=32.0, middle=36.0), far=0.9, near=0.2, middle=0.6)
        assert order_teachers(costs, scores).names == ['near', 'middle', 'far']

    def test_the_last_is_the_best_and_not_the_farthest(self):
        costs, scores = numbers(dict(far=35.0, best=40.0), far=0.9, best=0.5)
        found = order_teachers(costs, scores)
        assert found.names == ['best'] and 'far is left out: it is no nearer to the student (0.9)' in found.reasons[-1]

    def test_one_that_is_no_better_than_the_student(self):
        costs, scores = numbers(dict(weak=29.0, best=40.0), weak=0.2, best=0.5)
        found = order_teachers(costs, scores)
        assert found.names == ['best']
        assert found.reasons[-1] == 'weak is left out: it is no better than the student (29 <= 30)'

    def test_of_several_the_one_that_costs_least_comes_before(self):
        costs, scores = numbers(dict(a=35.0, b=36.0, best=40.0), a=0.3, b=0.25, best=0.5)
        assert order_teachers(costs, scores).names == ['b', 'a', 'best']
        costs['b', 'best'] = 0.1
        found = order_teachers(costs, scores)
        assert found.names == ['b', 'best'] and 'a is left out' in found.reasons[-1]

    @pytest.mark.parametrize('scores', [dict(t1=1.0), dict(student=1.0), dict(student=1.0, t1=2.0, t2=3.0)])
    def test_numbers_are_missing(self, scores):
        with pytest.raises(ValueError, match='expected scores of .student. and of teachers, and a cost for each pair'):
            order_teachers({('student', 't1'): 0.1}, scores)

    def test_as_a_text(self):
        costs, scores = numbers(dict(t1=40.0), t1=0.5)
        text = described(costs, scores, order_teachers(costs, scores))
        assert 'student -> t1       0.5000' in text and text.endswith('order: t1')


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """Three teachers: the student itself, a blend of it with noise, noise; the second is normalised otherwise."""
    folder = tmp_path_factory.mktemp('order')
    student = build_model(tiny_retinanet(), seed=3).state_dict()
    noise = build_model(tiny_retinanet(), seed=4).state_dict()
    states = dict(
        same=student, blend={k: v if k.startswith('backbone') else noise[k] for k, v in student.items()}, noise=noise
    )
    for name, state in {**states, 'student': student}.items():
        torch.save(dict(state_dict=state, meta={}), folder / f'{name}.pth')
    return folder


def test_costs_of_three_teachers_that_drift_away(saved):
    from mmrkd.models import Distiller

    teachers = {
        name: dict(cfg=tiny_retinanet(), ckpt=str(saved / f'{name}.pth')) for name in ('noise', 'same', 'blend')
    }
    build_model(tiny_retinanet())
    distiller = Distiller(tiny_retinanet(), teachers=teachers)
    distiller.student.load_state_dict(torch.load(saved / 'student.pth', weights_only=True)['state_dict'])
    batches = [detection_batch(seed=seed) for seed in range(2)]
    costs = measure_costs(distiller, deepcopy(batches))
    assert costs.keys() == {(a, b) for a in ('student', *teachers) for b in teachers if a != b}
    assert costs['student', 'same'] == pytest.approx(0, abs=1e-5)
    assert 0.01 < costs['student', 'blend'] < costs['student', 'noise'] <= 1
    scores = dict(student=30.0, same=31.0, blend=33.0, noise=35.0)
    costs['blend', 'noise'] = min(costs.values())  # nothing leads to noise
    assert order_teachers(costs, scores).names == ['same', 'blend', 'noise']

    with torch.no_grad():  # the finest level by hand
        data = [distiller.data_preprocessor(deepcopy(batch), False)['inputs'] for batch in batches]
        maps = {n: [] for n in ('student', 'noise')}
        for images in data:
            maps['student'].append(distiller.student.extract_feat(images))
            maps['noise'].append(distiller.teachers['noise'].model.extract_feat(images))
    levels = [[torch.cat(level) for level in zip(*maps[name])] for name in ('student', 'noise')]
    expected = sum(adaptation_cost(a, b) for a, b in zip(*levels)) / 3
    assert costs['student', 'noise'] == pytest.approx(expected, rel=1e-5)


def test_wider_padding_and_other_strides_of_one_teacher(saved, tmp_path):
    from mmrkd.models import Distiller

    cfg = tiny_retinanet(8, 16, strides=(8, 16, 32, 64))
    cfg['data_preprocessor'] = dict(cfg['data_preprocessor'], pad_size_divisor=64, mean=[100.0] * 3)
    wide = save_random_teacher(cfg, tmp_path)
    distiller = Distiller(
        tiny_retinanet(), teachers=dict(wide=wide, same=dict(cfg=tiny_retinanet(), ckpt=str(saved / 'same.pth')))
    )
    costs = measure_costs(distiller, [detection_batch(size=96)])
    assert len(costs) == 4 and all(0 < cost <= 1 for cost in costs.values())


def test_the_tool(squares, monkeypatch, capsys):
    teachers = ['--teacher', f'other={squares.teacher},{squares.ckpt}']
    cfg = Config.fromfile(squares.student)
    ckpt = str(squares.folder / 'alone.pth')
    torch.save(dict(state_dict=build_model(cfg.model, seed=2).state_dict(), meta={}), ckpt)
    monkeypatch.setattr(sys, 'argv', ['order_teachers.py', squares.student, ckpt, *teachers, '--images', '4'])
    runpy.run_path(str(TOOL), run_name='__main__')
    text = capsys.readouterr().out
    assert 'student -> other' in text and 'order: other' in text and 'other is the last' in text
    monkeypatch.setattr(sys, 'argv', [*sys.argv, '--score', 'other=0.9', '--score', 'student=0.1'])
    runpy.run_path(str(TOOL), run_name='__main__')
    assert 'most accurate (0.9)' in capsys.readouterr().out
    monkeypatch.setattr(sys, 'argv', [*sys.argv, '--teacher', 'nothing'])
    with pytest.raises(SystemExit):
        runpy.run_path(str(TOOL), run_name='__main__')
    assert "expected NAME=CONFIG,CHECKPOINT, found 'nothing'" in capsys.readouterr().err
