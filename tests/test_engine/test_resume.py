import os
import runpy
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmrkd.engine.launch import build_runner
from mmrkd.engine.resume import latest_intact_checkpoint, require_fit, settle_checkpoint
from mmrkd.testing import build_distiller, build_model, save_random_teacher, tiny_retinanet

ROOT = Path(__file__).resolve().parents[2]


def save(path, value=1.0, iteration=1):
    torch.save(dict(state_dict=dict(a=torch.full((5000,), value)), meta=dict(iter=iteration)), path)
    return str(path)


def tear(path):
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) // 2])


def flip(path):
    content = bytearray(Path(path).read_bytes())
    content[len(content) // 2] ^= 255
    Path(path).write_bytes(content)


class Malicious:
    """What it stands for in a file is a call that leaves a mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def malicious(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    torch.save(
        dict(state_dict=dict(a=torch.zeros(1)), meta=dict(epoch=1, iter=2, x=Malicious(tmp_path / 'mark'))), path
    )
    return path


class TestLatestIntact:
    def test_the_highest_number_counts_and_not_the_name(self, tmp_path):
        paths = [save(tmp_path / f'epoch_{number}.pth') for number in (10, 9)]
        assert latest_intact_checkpoint(str(tmp_path)) == paths[0]

    def test_the_file_that_mmengine_names_comes_first(self, tmp_path):
        paths = [save(tmp_path / f'epoch_{number}.pth') for number in (1, 2)]
        (tmp_path / 'last_checkpoint').write_text(paths[0])
        assert latest_intact_checkpoint(str(tmp_path)) == paths[0]

    @pytest.mark.parametrize('note', ['', '/nowhere/epoch_9.pth'])
    def test_a_note_that_names_no_file_does_not_matter(self, tmp_path, note):
        (tmp_path / 'last_checkpoint').write_text(note)
        path = save(tmp_path / 'epoch_1.pth')
        assert latest_intact_checkpoint(str(tmp_path)) == path

    @pytest.mark.parametrize('damage', [tear, flip, lambda path: Path(path).write_bytes(b'')])
    def test_a_damaged_file_is_passed_over_with_a_message(self, tmp_path, damage, capsys):
        paths = [save(tmp_path / f'epoch_{number}.pth') for number in (1, 2)]
        (tmp_path / 'last_checkpoint').write_text(paths[1])
        damage(paths[1])
        assert latest_intact_checkpoint(str(tmp_path)) == paths[0]
        output = capsys.readouterr().out
        assert 'epoch_2.pth' in output and 'the one before it is tried' in output

    def test_if_all_are_damaged_nothing_starts_over_by_itself(self, tmp_path):
        tear(save(tmp_path / 'epoch_1.pth'))
        with pytest.raises(ValueError, match='no checkpoint in .* is intact: .*epoch_1.pth.*Remove them'):
            latest_intact_checkpoint(str(tmp_path))

    def test_best_checkpoints_and_parts_of_files_are_no_candidates(self, tmp_path):
        save(tmp_path / 'best_score_epoch_3.pth')
        save(tmp_path / 'epoch_3.pth.part')
        assert latest_intact_checkpoint(str(tmp_path)) is None


class TestSettle:
    def test_the_latest_is_resumed(self, tmp_path):
        path = save(tmp_path / 'epoch_1.pth')
        cfg = Config(dict(work_dir=str(tmp_path), resume=True, load_from=None))
        settle_checkpoint(cfg)
        assert cfg.resume and cfg.load_from == path

    def test_with_nothing_to_resume_the_run_starts_and_says_so(self, tmp_path, capsys):
        cfg = Config(dict(work_dir=str(tmp_path), resume=True))
        settle_checkpoint(cfg)
        assert not cfg.resume and cfg.load_from is None
        assert 'nothing to resume' in capsys.readouterr().out

    def test_a_torn_file_that_was_named_is_an_error(self, tmp_path):
        tear(save(tmp_path / 'epoch_1.pth'))
        cfg = Config(dict(work_dir=str(tmp_path), resume=True, load_from=str(tmp_path / 'epoch_1.pth')))
        with pytest.raises(ValueError, match='a broken one.*--resume without a file takes the newest intact one'):
            settle_checkpoint(cfg)

    def test_a_config_without_a_checkpoint_is_not_touched(self):
        cfg = Config(dict(work_dir='x'))
        settle_checkpoint(cfg)
        assert cfg.to_dict() == dict(work_dir='x')

    def test_other_stores_cannot_be_looked_into(self):
        cfg = Config(dict(load_from='s3://bucket/epoch_1.pth'))
        with pytest.raises(ValueError, match="'s3://bucket/epoch_1.pth' cannot be checked.*--allow-pickle"):
            settle_checkpoint(cfg)
        settle_checkpoint(cfg, allow_pickle=True)


class TestNothingIsExecuted:
    @pytest.mark.parametrize('start', ['resume', 'resume the file', 'load_from'])
    def test_no_run_is_built_around_it(self, run_cfg, malicious, tmp_path, start):
        cfg = run_cfg(tmp_path, resume=start != 'load_from')
        cfg.load_from = None if start == 'resume' else str(malicious)
        with pytest.raises(ValueError, match='would run code when they are unpickled.*--allow-pickle'):
            build_runner(cfg)
        assert not (tmp_path / 'mark').exists()

    @pytest.mark.parametrize('tool', ['train.py', 'test.py'])
    def test_the_tools_end_with_a_message(self, run_cfg, malicious, tmp_path, tool, monkeypatch):
        run_cfg(tmp_path).dump(str(tmp_path / 'some_config.py'))
        arguments = ['--resume', str(malicious)] if tool == 'train.py' else [str(malicious)]
        command = [tool, str(tmp_path / 'some_config.py'), *arguments, '--work-dir', str(tmp_path)]
        monkeypatch.setattr(sys, 'argv', command)
        with pytest.raises(SystemExit, match='would run code'):
            runpy.run_path(str(ROOT / 'tools' / tool), run_name='__main__')
        assert not (tmp_path / 'mark').exists()

    def test_it_is_if_the_user_asks(self, malicious, tmp_path):
        settle_checkpoint(Config(dict(work_dir=str(tmp_path), resume=True)), allow_pickle=True)
        assert (tmp_path / 'mark').exists()


class TestRequireFit:
    def test_weights_of_another_model_are_refused(self, tmp_path):
        path = str(tmp_path / 'wide.pth')
        torch.save(dict(state_dict=build_model(tiny_retinanet(16)).state_dict()), path)
        with pytest.raises(ValueError, match=r'wide.pth.* does not fit RetinaNet: .* other shapes'):
            require_fit(build_model(tiny_retinanet(8)), path)
        require_fit(build_model(tiny_retinanet(16)), path)

    def test_of_a_distiller_the_student_counts(self, tmp_path):
        teacher = save_random_teacher(tiny_retinanet(16), tmp_path)
        distiller = build_distiller(tiny_retinanet(8), teacher, [dict(type='mmrkd.FitNets')])
        path = str(tmp_path / 'student.pth')
        torch.save(dict(state_dict=distiller.student.state_dict()), path)
        require_fit(distiller, path)
        with pytest.raises(ValueError, match='does not fit RetinaNet'):
            require_fit(distiller, teacher['ckpt'])
