"""The command as a new user types it."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

import mmrkd.commands
from mmrkd.commands import COMMANDS, main
from mmrkd.commands.report import config_of
from mmrkd.engine.benchmark import PARTS, Benchmark, Timing
from mmrkd.engine.step_counts import StepCounts
from mmrkd.engine.testing_options import augment_test, draw_predictions
from mmrkd.testing import NUM_CLASSES

ROOT = Path(__file__).resolve().parents[1]


def shell(*command, env=(), **options):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', **dict(env)}
    return subprocess.run(
        [sys.executable, *map(str, command)], env=environment, capture_output=True, text=True, timeout=280, **options
    )


class TestHelp:
    def test_the_help_names_every_command_and_loads_no_torch(self):
        """As the script does that pip installs."""
        script = (
            "import sys; sys.argv = ['/usr/bin/mmrkd', '--help']\n"
            'from mmrkd.commands import main\n'
            'try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0\n'
            "assert not {'torch', 'mmengine', 'numpy'} & set(sys.modules), sorted(sys.modules)"
        )
        done = shell('-c', script)
        assert done.returncode == 0, done.stderr
        assert all(f'    {name}' in done.stdout for name in COMMANDS)

    def test_python_m_loads_no_torch_to_answer(self, tmp_path):
        """Torch alone takes seconds."""
        done = shell('-X', 'importtime', '-m', 'mmrkd', 'train', '--help', cwd=tmp_path)
        assert done.returncode == 0 and '--teacher-ckpt' in done.stdout and 'torch' not in done.stderr

    @pytest.mark.parametrize('name', COMMANDS)
    def test_each_command_has_a_summary_and_an_example(self, name, capsys):
        with pytest.raises(SystemExit) as end:
            main([name, '--help'])
        text = capsys.readouterr().out
        assert end.value.code == 0 and f'\n  mmrkd {name}' in text
        assert text.split('\n\n')[1].endswith('.')

    def test_no_command_is_an_error(self, capsys):
        with pytest.raises(SystemExit) as end:
            main([])
        assert end.value.code == 2 and 'COMMAND' in capsys.readouterr().err

    def test_the_version(self, capsys):
        with pytest.raises(SystemExit):
            main(['--version'])
        assert capsys.readouterr().out.strip() == f'mmrkd {mmrkd.__version__}'


@pytest.fixture(scope='module')
def trained(squares, tmp_path_factory):
    """A finished run of one epoch by the command, in a process of its own."""
    folder = tmp_path_factory.mktemp('commands')
    (folder / 'cfg.py').write_text(f"""_base_ = {squares.student!r}
model = dict(
    _delete_=True, type='mmrkd.Distiller', student=_base_.model,
    teacher=dict(cfg={squares.teacher!r}, ckpt={squares.ckpt!r}), methods=[dict(type='mmrkd.ERA')])
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'integrated'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'integrated'))
test_dataloader, test_evaluator = _base_.val_dataloader, _base_.val_evaluator
default_hooks = dict(visualization=dict(type='DetVisualizationHook'))
visualizer = dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
""")
    done = shell('-W', 'ignore', '-m', 'mmrkd', 'train', 'cfg.py', cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class TestTrained:
    def test_it_was_our_runner_and_the_check_was_made(self, trained):
        run = trained / 'work_dirs' / 'cfg'
        cfg = Config.fromfile(run / 'cfg.py')
        assert cfg.runner_type == 'mmrkd.Runner' and cfg.custom_hooks[0].type == 'mmrkd.SplitCheckpointHook'
        assert 'pre-flight check' in next(run.glob('*/*.log')).read_text()
        assert torch.load(run / 'epoch_1.pth', weights_only=False)['mmrkd']['state_dict']

    def test_report(self, trained, tmp_path, capsys):
        main(['report', f'mine={trained}/work_dirs/cfg', '--out', str(tmp_path / 'out'), '--images', '2'])
        rows = [line.split('|')[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith('| ')]
        assert rows == ['model', 'mine', 'mine, integrated']
        assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
            'curves.png',
            'detections.png',
            'losses_0.png',
            'report.html',
            'table.md',
        ]

    def test_report_of_nothing(self, tmp_path):
        with pytest.raises(SystemExit, match='is no work dir of a finished run'):
            main(['report', str(tmp_path)])
        with pytest.raises(SystemExit, match="two runs are called 'a'"):
            (tmp_path / 'a.py').write_text('')
            main(['report', f'a={tmp_path}', f'a={tmp_path}'])

    def test_the_newest_config_of_a_work_dir_counts(self, tmp_path):
        for age, name in enumerate(('b', 'a', 'c')):
            (tmp_path / f'{name}.py').write_text('')
            os.utime(tmp_path / f'{name}.py', (100 - age, 100 - age))
        assert config_of(str(tmp_path)) == str(tmp_path / 'b.py')

    def test_export(self, trained, tmp_path, monkeypatch):
        monkeypatch.chdir(trained)
        main(['export', 'cfg.py', 'work_dirs/cfg/epoch_1.pth', '--out', str(tmp_path)])
        assert 'mmrkd' not in (tmp_path / 'student.py').read_text() and (tmp_path / 'student.pth').is_file()

    def tested(self, trained, tmp_path, *arguments):
        checkpoint = str(trained / 'work_dirs/cfg/epoch_1.pth')
        main(['test', str(trained / 'cfg.py'), checkpoint, '--work-dir', str(tmp_path / 'test'), *arguments])

    def test_predictions_are_drawn_and_dumped(self, trained, tmp_path):
        out = tmp_path / 'out.pkl'
        arguments = ('--variants', 'student', '--out', str(out), '--show-dir', 'drawn')
        self.tested(trained, tmp_path, *arguments)
        predictions = pickle.loads(out.read_bytes())
        assert len(predictions) == 8 and {'bboxes', 'scores', 'labels'} <= set(predictions[0]['pred_instances'])
        assert len(list((tmp_path / 'test').glob('*/drawn/*.png'))) == 8

    def test_augmentation_is_of_the_student(self, trained, tmp_path):
        """Boxes of an image and of its mirror image, merged: not those of the image alone."""
        paths = [tmp_path / 'plain.pkl', tmp_path / 'tta.pkl']
        self.tested(trained, tmp_path, '--variants', 'student', '--out', str(paths[0]))
        self.tested(trained, tmp_path, '--tta', '--out', str(paths[1]))
        plain, augmented = (pickle.loads(path.read_bytes()) for path in paths)
        assert [p['img_id'] for p in plain] == [p['img_id'] for p in augmented]
        scores = [p['pred_instances']['scores'].sort().values[-3:] for p in (plain[0], augmented[0])]
        assert len(scores[1]) and not torch.equal(*scores)

    @pytest.mark.parametrize(
        'arguments, message',
        [
            (('--tta', '--variants', 'teacher'), '--tta is for the student alone'),
            (('--tta', '--cost'), '--tta is for the student alone'),
            (('--out', 'a.txt'), "a file that ends with .pkl, found 'a.txt'"),
            (('--out', 'a.pkl'), 'of one variant: choose one with --variants'),
        ],
    )
    def test_what_makes_no_sense(self, arguments, message, trained, tmp_path):
        with pytest.raises(SystemExit, match=message):
            self.tested(trained, tmp_path, *arguments)

    def test_a_checkpoint_that_does_not_fit(self, trained, squares, tmp_path):
        arguments = [squares.ckpt, '--work-dir', str(tmp_path)]
        with pytest.raises(SystemExit, match='does not fit RetinaNet'):
            main(['test', str(trained / 'cfg.py'), *arguments])


class TestOptionsOfATest:
    def classifier(self, **parts):
        pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
        loader = dict(dataset=dict(type='RepeatDataset', dataset=dict(type='CustomDataset', pipeline=pipeline)))
        preprocessor = dict(num_classes=NUM_CLASSES)
        return Config(
            dict(
                default_scope='mmpretrain',
                model=dict(type='ImageClassifier'),
                data_preprocessor=preprocessor,
                test_dataloader=loader,
                **parts,
            )
        )

    def test_a_classifier(self):
        cfg = augment_test(self.classifier())
        inner = dict(type='ImageClassifier', data_preprocessor=dict(num_classes=NUM_CLASSES))
        assert cfg.model == dict(type='mmpretrain.AverageClsScoreTTA', module=inner)
        flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
        expected = [
            dict(type='LoadImageFromFile'),
            dict(type='TestTimeAug', transforms=[flips, [dict(type='PackInputs')]]),
        ]
        assert cfg.test_dataloader.dataset.dataset.pipeline == expected

    def test_what_the_config_says_wins(self):
        own = dict(tta_model=dict(type='Mine', a=1), tta_pipeline=[dict(type='Some')])
        cfg = augment_test(self.classifier(**own))
        assert (cfg.model.type, cfg.model.a) == ('Mine', 1)
        assert cfg.test_dataloader.dataset.dataset.pipeline == own['tta_pipeline']

    def test_another_library(self):
        cfg = self.classifier()
        cfg.default_scope = 'mmpose'
        with pytest.raises(ValueError, match='needs a tta_model of its own'):
            augment_test(cfg)

    def test_drawing(self):
        cfg = self.classifier(default_hooks=dict(visualization=dict(type='VisualizationHook')))
        draw_predictions(cfg, 'drawn')
        assert cfg.default_hooks.visualization == dict(type='VisualizationHook', enable=True, out_dir='drawn')
        with pytest.raises(ValueError, match='no default_hooks.visualization'):
            draw_predictions(self.classifier(), 'drawn')


class TestBenchmark:
    def test_numbers_by_hand(self):
        mb, g = 10**6, 10**9
        parts = [Timing([2.0, 4.0, 3.0], 40 * mb, 10 * g), Timing([1.0] * 3, 5 * mb, 4 * g)]
        parts += [Timing([0.5, 1.0, 1.5], 7 * mb, 6 * g), Timing([6.0, 5.0, 10.0], 60 * mb, 21 * g)]
        weights = dict(student=20 * mb, teacher=30 * mb, methods=mb)
        found = Benchmark(dict(zip(PARTS, parts)), StepCounts(1, 1, 1, 2, 0, 54), weights, 10 * mb)
        assert parts[0].quartiles == (2.5, 3.0, 3.5) and Timing([2.0]).quartiles == (2.0, 2.0, 2.0)
        expected = dict(R=6 / 4, R_star=6 / 5, R_flops=21 / 14, R_star_flops=21 / 20, memory=110 / 100)
        assert found.ratios() == pytest.approx(expected) and found.as_dict()['ratios'] == found.ratios()
        text = found.table()
        assert '| distillation step | 6000.0 | 5500.0 to 8000.0 | 21 | 60 |' in text
        assert 'R = distillation / (plain + teacher) = 1.500; in operations 1.500' in text
        assert 'R* = distillation / (plain + teacher + formula) = 1.200; in operations 1.050' in text
        assert 'memory / bound = 1.100; bound 100 MB' in text
        assert 'teacher 1 body, 2 head; waits for the device: 0 of mmrkd, 54 in all' in text

    def test_what_was_not_measured_has_no_ratio(self):
        found = Benchmark({part: Timing([1.0]) for part in PARTS})
        assert found.ratios()['R_flops'] is None and 'memory / bound = -' in found.table()

    @pytest.mark.parametrize('images', [(), ('--generated', '96', '96')], ids=['real', 'generated'])
    def test_of_a_composed_distillation(self, images, squares, capsys, tmp_path):
        teacher = ('--teacher', squares.teacher, '--teacher-ckpt', squares.ckpt, '--method', 'era')
        file = tmp_path / 'step.json'
        steps = ('--steps', '2', '--warmup', '1', '--device', 'cpu', '--json', str(file))
        main(['benchmark', squares.student, *teacher, *steps, *images])
        text, found = capsys.readouterr().out, json.loads(file.read_text())
        assert all(f'| {part} | ' in text for part in PARTS)
        parts, ratios = found['parts'], found['ratios']
        assert 1 < ratios['R'] < 20 and ratios['R_star'] < ratios['R']
        below = sum(parts[part]['flops'] for part in PARTS[:3])
        assert parts['distillation step']['flops'] == pytest.approx(below, rel=1e-6), 'a step is its parts'
        assert all(len(part['seconds']) == 2 and part['memory'] > 0 for part in parts.values())
        assert ratios['memory'] == found['memory']['needed'] / found['memory']['bound'] > 1
        assert found['counts'] == {**found['counts'], 'student_bodies': 1, 'teacher_bodies': 1, 'own_waits': 0}

    def test_a_plain_config_has_nothing_to_compare(self, squares):
        with pytest.raises(SystemExit, match='expected a distillation'):
            main(['benchmark', squares.student])
