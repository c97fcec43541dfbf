"""The plan of the repository, replaced by one of a tiny pair."""

import pytest

from benchmarks import plan
from benchmarks.plan import Pair, Row


@pytest.fixture
def tiny_plan(monkeypatch, squares):
    """One pair, the tiny detectors on generated squares, with two rows, and a second pair with the same teacher."""
    hint = dict(type='mmrkd.FitNets')
    pair = Pair('tiny', 'detection', 'pair.py', squares.student, squares.teacher, ('coco/bbox_mAP', 100.0))
    monkeypatch.setattr(plan, 'PAIRS', {'tiny': pair, 'other': pair})
    rows = {
        'alone': Row('alone', {'detection': []}),
        'era': Row('ERA', {'detection': [dict(type='mmrkd.ERA')]}, ('integrated',), ours=True),
        'hint': Row('hint', {'detection': [hint]}, search={'detection': ('w_feat', (0.2, 5.0))}, published='1.0'),
        'dist': Row('DIST', {'classification': [dict(type='mmrkd.DIST')]}),
    }
    monkeypatch.setattr(plan, 'ROWS', rows)
    return plan
