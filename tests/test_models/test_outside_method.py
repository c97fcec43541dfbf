"""A feature loss from outside the package: one file of 40 lines that touches nothing else."""

import importlib
import sys

import pytest
import torch

from mmrkd.checkpoint import METHOD_STATE
from mmrkd.doctor import examine
from mmrkd.engine import prepare_config
from mmrkd.engine.compose import compose
from mmrkd.registry import MODELS

FILE = '''
"""Cosine distance of the features of each level, as somebody writes it who has read CONTRIBUTING.md."""

import torch
import torch.nn.functional as F

from mmrkd.models import DistillMethod, Projection
from mmrkd.registry import MODELS


@MODELS.register_module()
class CosineHint(DistillMethod):
    """One minus the cosine between P(f_s) and f_t at each position.

    Args:
        w_cosine: Weight. Defaults to 1.
    """

    weights = {'w_cosine': 'loss_cosine'}
    compares_classes = False

    def __init__(self, w_cosine: float = 1.0) -> None:
        super().__init__()
        self.w_cosine = w_cosine

    def setup(self, pair):
        match = pair.match
        self.projection = Projection(match.student_channels, match.teacher_channels, match.vectors)

    def losses(self, student, teacher, samples):
        estimates = self.projection(student.feats)
        distances = [1 - F.cosine_similarity(e.float(), t, dim=1).mean() for e, t in zip(estimates, teacher.feats)]
        return {'loss_cosine': self.w_cosine * torch.stack(distances).mean()}
'''


@pytest.fixture
def cfg(squares, tmp_path, monkeypatch):
    from mmengine.config import Config

    (tmp_path / 'cosine_hint.py').write_text(FILE)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop('cosine_hint', None)
    importlib.import_module('cosine_hint')  # what custom_imports does
    cfg = compose(Config.fromfile(squares.student), squares.teacher, squares.ckpt, ['cosine_hint'])
    cfg.work_dir, cfg.experiment_name, cfg.log_level = str(tmp_path / 'run'), 'outside', 'ERROR'
    yield cfg
    MODELS.module_dict.pop('CosineHint')


def test_it_is_short():
    assert len(FILE.strip().splitlines()) <= 40


def test_the_check_knows_its_term_its_weight_and_its_arguments(cfg):
    report = examine(cfg, images=4)
    assert not report.faults and any('cosinehint.loss_cosine' in line for line in report.lines)
    cfg.model.methods[0].w_cosine = 0.0
    assert [fault.name for fault in examine(cfg, images=4).faults] == ['zero-weight']
    cfg.model.methods[0].w_cosine = '0.5'
    (fault,) = examine(cfg, images=4).faults
    assert fault.name == 'method-argument' and 'w_cosine' in fault.message


def test_a_run_saves_resumes_and_schedules_it(cfg, tmp_path):
    from mmengine.runner import Runner

    cfg.train_cfg.update(max_epochs=2)
    cfg.custom_hooks = [dict(type='mmrkd.DistillScheduleHook', method='cosinehint', warmup=1)]
    whole = Runner.from_cfg(prepare_config(cfg))
    whole.train()
    saved = torch.load(tmp_path / 'run' / 'epoch_2.pth', weights_only=False)
    assert {key.split('.')[1] for key in saved[METHOD_STATE]['state_dict']} == {'cosinehint'}
    assert not any('cosine' in key for key in saved['state_dict'])
    cfg.update(resume=True, load_from=str(tmp_path / 'run' / 'epoch_1.pth'), work_dir=str(tmp_path / 'again'))
    cfg.experiment_name = 'outside_again'
    again = Runner.from_cfg(prepare_config(cfg))
    again.train()
    state = whole.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in again.model.state_dict().items())
