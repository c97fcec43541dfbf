"""The main job as a new user starts it, on a handful of its images, and started again."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('sklearn')
ROOT = Path(__file__).resolve().parents[2]
FEW = ['train_dataloader.dataset.indices=40', 'val_dataloader.dataset.indices=4']
FEW += ['train_cfg.val_interval=20', 'param_scheduler.0.end=2']  # a warm-up of its usual length would be all
MODELS = ['teacher', 'student', 'student with ERA', 'student with ERA, integrated']


@pytest.mark.slow
def test_it_ends_with_a_table_and_pictures_and_does_not_train_again(tmp_path):
    command = [sys.executable, ROOT / 'tools/quick_start.py', '--out', tmp_path, '--no-check', '--cfg-options', *FEW]
    first, second = (subprocess.run(command, capture_output=True, text=True, cwd=tmp_path) for _ in range(2))
    for done in (first, second):
        assert done.returncode == 0, done.stdout + done.stderr
        rows = [line.split('|')[1].strip() for line in done.stdout.splitlines() if line.startswith('| ')]
        assert rows[1:] == MODELS
    assert 'remaining' in first.stdout and 'already trained' not in first.stdout
    assert 'remaining' not in second.stdout and second.stdout.count('already trained') == 3
    pictures = [(tmp_path / name).read_bytes() for name in ('curves.png', 'detections.png')]
    assert all(picture.startswith(b'\x89PNG') for picture in pictures)
