import argparse
import os

import pytest
from mmengine.config import Config

from mmrkd.engine.compose import add_compose_arguments, find_method, method_names
from mmrkd.engine.launch import add_common_arguments, build_runner, load_config

ERA = ('--method', 'era')


@pytest.fixture
def load(squares, tmp_path, monkeypatch):
    """Loads the student's config, or another one, with a command line; the work dir is ``work`` in a folder."""

    def load(*command, config=squares.student):
        monkeypatch.chdir(tmp_path)
        parser = argparse.ArgumentParser()
        add_common_arguments(parser)
        add_compose_arguments(parser)
        return load_config(parser.parse_args([config, *command]))

    return load


@pytest.fixture
def teacher(squares):
    return ('--teacher', squares.teacher, '--teacher-ckpt', squares.ckpt)


def losses(cfg):
    cfg.experiment_name = f'{cfg.filename} {len(os.listdir(cfg.work_dir)) if os.path.isdir(cfg.work_dir) else 0}'
    runner = build_runner(cfg)
    runner.train()
    scalars = runner.message_hub.log_scalars
    return {name: scalars[name].data[0].tolist() for name in scalars if 'loss' in name}


class TestCommandLine:
    def test_the_model_is_wrapped_and_the_rest_is_the_students(self, load, teacher, squares):
        plain, cfg = load(), load(*teacher, *ERA, '--init-student', 'head')
        assert cfg.model.to_dict() == dict(
            type='mmrkd.Distiller',
            student=plain.model.to_dict(),
            teacher=dict(cfg=squares.teacher, ckpt=squares.ckpt),
            methods=[dict(type='mmrkd.ERA')],
            init_student='head',
            backbone={},  # functions of the libraries look for it
        )
        assert cfg.default_hooks.pop('checkpoint') == dict(type='mmrkd.ResumableCheckpointHook', interval=1)
        assert cfg.train_cfg.pop('type') == 'mmrkd.ResumableEpochLoop' and plain.train_cfg.pop('by_epoch')
        ours = ('model', 'custom_hooks', 'work_dir')
        assert {k: v for k, v in cfg.items() if k not in ours} == {k: v for k, v in plain.items() if k not in ours}
        assert cfg.work_dir == os.path.join('work_dirs', 'era_teacher_student')

    def test_several_methods_and_options_of_theirs(self, load, teacher):
        cfg = load(*teacher, *ERA, '--method', 'FitNets', '--cfg-options', 'model.methods.1.w_feat=0.5')
        assert cfg.model.methods == [dict(type='mmrkd.ERA'), dict(type='mmrkd.FitNets', w_feat=0.5)]
        assert cfg.work_dir == os.path.join('work_dirs', 'era-fitnets_teacher_student')

    def test_names_of_a_library_and_addresses_are_kept(self, load):
        name, address = 'mmdet::retinanet/retinanet_r101_fpn_2x_coco.py', 'https://example.org/teacher.pth'
        cfg = load('--teacher', name, '--teacher-ckpt', address, *ERA)
        assert cfg.model.teacher == dict(cfg=name, ckpt=address)
        assert cfg.work_dir.endswith('era_retinanet_r101_fpn_2x_coco_student')

    def test_paths_are_made_absolute(self, load, squares, tmp_path):
        cfg = load('--teacher', squares.teacher, '--teacher-ckpt', 'some.pth', *ERA)
        assert cfg.model.teacher.ckpt == str(tmp_path / 'some.pth')

    def test_without_these_arguments_nothing_changes(self, load):
        assert load().to_dict()['model']['type'] == 'RetinaNet'

    @pytest.mark.parametrize(
        'left_out, expected',
        [
            (('--teacher',), 'also give --teacher:'),
            (('--teacher-ckpt',), 'also give --teacher-ckpt:'),
            (('--method',), 'also give --method:'),
            (('--teacher', '--teacher-ckpt'), 'also give --teacher and --teacher-ckpt:'),
        ],
    )
    def test_what_is_left_out_is_named(self, load, teacher, left_out, expected):
        words = [*teacher, *ERA]
        for name in left_out:
            del words[words.index(name) : words.index(name) + 2]
        with pytest.raises(ValueError, match=expected):
            load(*words)

    def test_init_student_alone_is_not_enough(self, load):
        with pytest.raises(ValueError, match='--teacher and --teacher-ckpt and --method'):
            load('--init-student', 'neck')

    def test_a_distillation_cannot_be_distilled_again(self, load, teacher, tmp_path):
        path = str(tmp_path / 'composed.py')
        load(*teacher, *ERA).dump(path)
        with pytest.raises(ValueError, match='composed.py is a distillation already'):
            load(*teacher, *ERA, config=path)
        with pytest.raises(ValueError, match='composed.py is a distillation itself.*export_student'):
            load('--teacher', path, *teacher[2:], *ERA)


class TestMethods:
    @pytest.mark.parametrize('name', ['era', 'ERA', 'mmrkd.ERA', 'fitnets', 'fit_nets', 'FitNets'])
    def test_any_spelling(self, name):
        assert find_method(name) == ('ERA' if 'era' in name.lower() else 'FitNets')

    def test_every_registered_method_can_be_named(self):
        assert {'era', 'fitnets'} <= set(method_names())
        assert all(find_method(name).lower() == name for name in method_names())

    def test_a_misspelt_one_is_suggested(self):
        with pytest.raises(ValueError, match=r"no method 'fitnet'. Did you mean fitnets\? Methods: .*era.*fitnets"):
            find_method('fitnet')


def test_the_file_in_the_work_dir_trains_alike(load, teacher, tmp_path):
    cfg = load(*teacher, *ERA, '--work-dir', 'work', '--cfg-options', 'model.methods.0.w_feat=0.5')
    first = losses(cfg)
    again = Config.fromfile(tmp_path / 'work' / 'era_teacher_student.py')
    assert again.model.methods[0].w_feat == 0.5
    assert len(first['train/loss']) == 2 and 'train/era.loss_feat' in first
    assert losses(load(config=str(tmp_path / 'work' / 'era_teacher_student.py'))) == first


def test_the_example_of_a_config_that_names_the_base_alone(load, teacher, squares, tmp_path):
    """Six lines, no custom_imports."""
    (tmp_path / 'six_lines.py').write_text(f"""_base_ = '{squares.student}'
model = dict(
    _delete_=True, type='mmrkd.Distiller', student=_base_.model,
    teacher=dict(cfg='{squares.teacher}', ckpt='{squares.ckpt}'),
    methods=[dict(type='mmrkd.ERA')])
""")
    cfg, composed = load(config=str(tmp_path / 'six_lines.py')), load(*teacher, *ERA)
    assert cfg.model.to_dict() == composed.model.to_dict()
    assert cfg.custom_hooks == composed.custom_hooks
    build_runner(cfg)
