"""The command as a user types it; the trials themselves are tested elsewhere."""

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAME = 'mmdet::atss/atss_r50_fpn_1x_coco.py'


@pytest.fixture
def run(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location('support_matrix', ROOT / 'tools/support_matrix.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tried = []

    def trial(name, _limit):
        tried.append(name)
        os.chdir('/')
        return dict(features='', methods=dict(ERA=['works', '']))

    monkeypatch.setattr(module, 'try_in_time', trial)
    monkeypatch.setattr(module, 'render', json.dumps)
    monkeypatch.chdir(tmp_path)

    def command(*arguments):
        tried.clear()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, 'argv', ['support_matrix.py', *arguments])
        module.main()
        return list(tried)

    return command


def test_what_is_named_is_tried_again_unless_only_failures_are_wanted(run, tmp_path):
    assert run('mmdet::atss/atss_r50', '--out', 'here/matrix') == [NAME]
    assert run('mmdet::atss/atss_r50', '--out', 'here/matrix') == [NAME]
    assert run('mmdet::atss/atss_r50', '--out', 'here/matrix', '--failed') == []
    assert list(json.loads((tmp_path / 'here/matrix.json').read_text())) == [NAME]  # not where the trial went
    assert (tmp_path / 'here/matrix.md').is_file()


def test_a_name_that_fits_nothing_is_said(run, capsys):
    with pytest.raises(SystemExit):
        run('mmdet::atsss')
    assert 'begins with mmdet::atsss' in capsys.readouterr().err
