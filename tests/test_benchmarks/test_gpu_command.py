"""The command for a machine with a GPU, as far as a CPU goes."""

import json
import subprocess
import sys

import pytest

from benchmarks import gpu


def run(*arguments):
    command = [sys.executable, '-m', 'benchmarks.gpu', *map(str, arguments)]
    return subprocess.run(command, cwd=gpu.ROOT, env=gpu.environment(), capture_output=True, text=True, timeout=280)


@pytest.mark.slow
def test_step_times_and_waits_of_a_dry_run(tmp_path):
    out = tmp_path / 'dry.json'
    done = run('--dry', '--out', out, '--parts', 'steps', 'waits')
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found['dry'] and 'failed' not in found['steps'] and 'failed' not in found['waits']
    for method in gpu.METHODS[:2]:
        ratios = found['steps']['tiny'][method]['ratios']
        assert 0.9 < ratios['R_flops'] < 3 and ratios['R_star_flops'] <= ratios['R_flops']
    assert {name: row['by_operators_own'] for name, row in found['waits'].items() if name != 'seconds'} == {
        method: {} for method in gpu.METHODS
    }


@pytest.mark.slow
def test_a_short_training_in_mixed_precision(tmp_path):
    out = tmp_path / 'dry.json'
    run('--dry', '--out', out, '--parts', 'training')
    found = json.loads(out.read_text())['training']
    assert 'failed' not in found, found
    assert found['steps'] == 4 and all(0 < loss < 100 for loss in found['losses'])


def test_a_part_that_fails_leaves_the_others_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(gpu.LIMITS, 'tests', 0.01)
    assert gpu.run_part('tests', dry=True)['failed'] == 'not done after 0.05 s'


def test_all_of_it_takes_eight_minutes_at_most():
    assert sum(gpu.LIMITS.values()) <= 480 and set(gpu.PARTS) == set(gpu.LIMITS)
