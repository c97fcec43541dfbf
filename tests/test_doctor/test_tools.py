import re
import runpy
import sys
from pathlib import Path

import pytest

from mmrkd.doctor.faults import FAULTS, table
from mmrkd.doctor.report import MOST_CHARACTERS, Report, shortened
from mmrkd.doctor.trial import lowest_metric

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tool(monkeypatch, capsys, tmp_path):
    """Returns a function that runs a tool as from a shell, and gives its status, or message, and what it printed."""
    monkeypatch.chdir(tmp_path)

    def tool(name, *command):
        monkeypatch.setattr(sys, 'argv', [name, *map(str, command)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / 'tools' / name), run_name='__main__')
        return end.value.code, capsys.readouterr().out

    return tool


class TestCheckDistill:
    def test_a_healthy_pair_ends_with_0(self, tool, squares):
        status, text = tool(
            'check_distill.py',
            *(squares.student, '--teacher', squares.teacher, '--teacher-ckpt', squares.ckpt, '--method', 'fitnets'),
            *('--init-student', 'bbox_head', '--images', 4, '--cfg-options', 'model.methods.0.w_feat=auto'),
        )
        assert status == 0, text
        assert re.search(r'fitnets\.w_feat +1 +[0-9.e+]+ +w_feat=[0-9.]+', text), text
        assert 'init_student: bbox_head: 2 of ' in text and 'the teacher on 4 validation images' in text
        assert 'no problem found' in text

    def test_several_problems_are_shown_at_once(self, tool, squares):
        status, text = tool(
            'check_distill.py',
            *(squares.student, '--teacher', squares.teacher, '--teacher-ckpt', 'nowhere.pth', '--method', 'fitnets'),
            *('--cfg-options', 'model.student.neck.type=FNP', 'train_dataloader.batch_size=0'),
            'val_evaluator.ann_file=nowhere.json',
        )
        names = ['batch-size', 'student-config', 'teacher-checkpoint-missing', 'missing-annotations']
        assert status == 1 and '4 problems' in text
        assert [line.split(']')[0][1:] for line in text.splitlines() if line.startswith('[')] == names

    @pytest.mark.parametrize(
        'text, name',
        [(None, 'config-unreadable'), ('model = (', 'config-unreadable'), ("_base_ = 'no.py'", 'config-unreadable')],
        ids=['missing', 'syntax', 'base'],
    )
    def test_a_config_that_cannot_be_read(self, tool, tmp_path, text, name):
        if text is not None:
            (tmp_path / 'some.py').write_text(text)
        status, text = tool('check_distill.py', 'some.py')
        assert status == 1 and f'[{name}]' in text and 'Traceback' not in text

    @pytest.mark.parametrize(
        'command, name',
        [
            (('--teacher', 'TEACHER', '--method', 'era'), 'command-line'),
            (('--teacher', 'TEACHER', '--teacher-ckpt', 'a.pth', '--method', 'ear'), 'command-line'),
            (('--teacher', 'nowhere.py', '--teacher-ckpt', 'a.pth', '--method', 'era'), 'teacher-config'),
            ((), 'not-a-distillation'),
        ],
    )
    def test_a_command_line_that_makes_no_distillation(self, tool, squares, command, name):
        words = [squares.teacher if word == 'TEACHER' else word for word in command]
        status, text = tool('check_distill.py', squares.student, *words)
        assert status == 1 and f'[{name}]' in text and '1 problem' in text

    def test_an_unknown_fault_cannot_be_ignored(self, tool, squares):
        status, _ = tool('check_distill.py', squares.student, '--ignore', 'sawpped')
        assert status.startswith("ValueError: cannot ignore ['sawpped']")


def test_train_ends_with_the_name(tool, squares):
    status, _ = tool(
        'train.py',
        *(squares.student, '--teacher', squares.teacher, '--teacher-ckpt', squares.ckpt, '--method', 'fitnets'),
        *('--cfg-options', 'model.methods.0.w_faet=1'),
    )
    assert status.startswith('FaultError: [method-argument] ') and 'w_faet' in status and 'Traceback' not in status


class TestReport:
    def test_an_error_becomes_a_fault_and_the_report_goes_on(self):
        report = Report()
        with report.expecting('step-failed', KeyError='tap-not-found'):
            raise RuntimeError('a' * 5000)
        with report.expecting('step-failed', KeyError='tap-not-found'):
            raise KeyError('no module x')
        assert [fault.name for fault in report.faults] == ['step-failed', 'tap-not-found']
        assert len(report.faults[0].message) < MOST_CHARACTERS + 20
        assert report.faults[1].message == 'KeyError: no module x'

    def test_what_is_ignored_is_said_and_is_no_fault(self):
        report = Report(['swapped'])
        report.fault('swapped', 'the teacher is smaller')
        assert not report.faults and 'ignored: [swapped] the teacher is smaller' in str(report)

    def test_the_pages_that_libraries_add_are_cut_off(self):
        assert shortened(ValueError('\n'.join(map(str, range(100))))).splitlines() == [
            '0',
            *(f'  {i}' for i in range(1, 6)),
        ]

    def test_with_mmrkd_debug_the_traceback_is_printed(self, monkeypatch, capsys):
        monkeypatch.setenv('MMRKD_DEBUG', '1')
        with Report().expecting('step-failed'):
            raise RuntimeError('boom')
        assert 'Traceback' in capsys.readouterr().err


@pytest.mark.parametrize(
    'name, classes, images, expected',
    [
        ('coco/bbox_mAP', 80, 16, 0.01),
        ('pascal_voc/mAP', 20, 16, 0.01),
        ('accuracy/top1', 10, 64, 17.5),
        ('accuracy/top1', 2, 100, 60.0),
        ('tiny/score', 4, 16, None),
    ],
)
def test_what_a_teacher_must_reach(name, classes, images, expected):
    assert lowest_metric(name, classes, images) == (expected if expected is None else pytest.approx(expected))


def test_the_docs_list_every_fault():
    assert table() in (ROOT / 'docs' / 'check_distill.md').read_text()
    assert all(entry.cause.endswith('.') and entry.remedy.endswith('.') for entry in FAULTS.values())
