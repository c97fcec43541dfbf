"""The tutorial runs from top to bottom, and what it shows is what it gave."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / 'docs/tutorial.ipynb'
SETTINGS = 'SCENES, EPOCHS = 320, 5'


def code(path):
    return [cell for cell in json.loads(path.read_text())['cells'] if cell['cell_type'] == 'code']


def printed(cell):
    return ''.join(''.join(output.get('text', '')) for output in cell['outputs'])


def test_the_outputs_in_the_file_are_those_of_one_run():
    cells = code(NOTEBOOK)
    assert [cell['execution_count'] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell['outputs'] for cell in cells)
    pictures = [o for cell in cells for o in cell['outputs'] if 'image/png' in o.get('data', {})]
    assert len(pictures) == 3
    text = ''.join(map(printed, cells))
    assert 'alone: ' in text and '0 without partner' in text and str(ROOT) not in text and '/tmp' not in text
    assert NOTEBOOK.stat().st_size < 2_000_000


@pytest.mark.slow
def test_it_runs_in_a_fresh_interpreter(tmp_path):
    """On a few scenes, which is not enough to find anything."""
    for package in ('sklearn', 'matplotlib', 'onnx', 'onnxruntime'):
        pytest.importorskip(package)
    source = NOTEBOOK.read_text()
    assert source.count(SETTINGS) == 1
    (tmp_path / 'short.ipynb').write_text(source.replace(SETTINGS, 'SCENES, EPOCHS = 24, 1'))
    command = [sys.executable, ROOT / 'tools/run_notebook.py', 'short.ipynb', '--out', 'done.ipynb']
    env = {**os.environ, 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    cells = code(tmp_path / 'done.ipynb')
    assert 'checked in onnxruntime' in printed(cells[-2]) and 'largest difference' in printed(cells[-1])
    assert [bool(cell['outputs']) for cell in cells] == [bool(cell['outputs']) for cell in code(NOTEBOOK)]


def test_a_cell_that_fails_is_named_and_nothing_is_written(tmp_path):
    cells = [dict(cell_type='code', source=[line], outputs=[]) for line in ('print(1)\n2', 'x = 1 / 0')]
    (tmp_path / 'a.ipynb').write_text(json.dumps(dict(cells=cells)))
    before = (tmp_path / 'a.ipynb').read_text()
    command = [sys.executable, ROOT / 'tools/run_notebook.py', tmp_path / 'a.ipynb']
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and 'cell 2 of' in done.stderr and 'ZeroDivisionError' in done.stderr
    assert (tmp_path / 'a.ipynb').read_text() == before
    cells.pop()
    (tmp_path / 'a.ipynb').write_text(json.dumps(dict(cells=cells)))
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    (cell,) = code(tmp_path / 'a.ipynb')
    assert printed(cell) == '1\n' and cell['outputs'][1]['data'] == {'text/plain': ['2']}
