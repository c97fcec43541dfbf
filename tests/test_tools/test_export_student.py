"""The command as a user types it; what is exported is tested in tests/test_export.py."""

import runpy
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from mmrkd.export import export

ROOT = Path(__file__).resolve().parents[2]


def test_settings_of_the_training_are_given_again(tmp_path, monkeypatch):
    """A teacher named with --cfg-options is not in the config file, and some forms need its weights."""
    seen = []
    monkeypatch.setattr('mmrkd.export.export', lambda cfg, *_: seen.append(cfg.model.teacher.ckpt) or ('a.py', 'a.pth'))
    Config(dict(model=dict(teacher=dict(ckpt='old.pth')))).dump(tmp_path / 'cfg.py')
    options = ['--cfg-options', 'model.teacher.ckpt=new.pth']
    monkeypatch.setattr(sys, 'argv', ['export_student.py', str(tmp_path / 'cfg.py'), 'run.pth', *options])
    runpy.run_path(str(ROOT / 'tools/export_student.py'), run_name='__main__')
    assert seen == ['new.pth']


def test_a_plain_config_is_refused():
    with pytest.raises(ValueError, match='expected a distillation config, found a plain RetinaNet'):
        export(Config(dict(model=dict(type='RetinaNet'))), 'run.pth', 'out')
