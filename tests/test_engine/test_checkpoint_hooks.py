import json
import os
import pickle
import runpy
import shutil
import sys
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.runner import Runner, load_checkpoint

from mmrkd.checkpoint import METHOD_STATE, load_checkpoint_file
from mmrkd.engine import MergeCheckpointHook, SplitCheckpointHook, prepare_config
from mmrkd.models import DistillMethod, MethodDict
from mmrkd.testing import build_distiller, build_model, save_random_teacher, tiny_classifier, tiny_retinanet

PREFIXES = ('', 'bridge/', 'teacher/')
ROOT = Path(__file__).resolve().parents[2]
PLAIN = dict(classifier=tiny_classifier, retinanet=tiny_retinanet)


def read(path):
    return torch.load(path, weights_only=False)


def assert_equal_states(found, expected):
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


@pytest.fixture(scope='module', params=['classifier', 'retinanet'])
def finished(request, run_cfg, train, tmp_path_factory):
    """An uninterrupted run of two epochs: its kind, folder and final weights."""
    folder = tmp_path_factory.mktemp('finished')
    runner = train(run_cfg(folder, request.param))
    return SimpleNamespace(kind=request.param, folder=folder, state=runner.model.state_dict(), ema=False)


@pytest.fixture(scope='module')
def finished_with_ema(run_cfg, train, tmp_path_factory):
    folder = tmp_path_factory.mktemp('finished_with_ema')
    runner = train(run_cfg(folder, ema=True))
    hook = next(hook for hook in runner.hooks if isinstance(hook, EMAHook))
    return SimpleNamespace(
        kind='classifier', folder=folder, state=runner.model.state_dict(), ema=hook.ema_model.state_dict()
    )


class TestPlainCheckpoint:
    def check(self, run, path):
        """The checkpoint is one of the plain model; returns it."""
        checkpoint, plain = read(path), build_model(PLAIN[run.kind](), seed=9)
        assert list(checkpoint['state_dict']) == list(plain.state_dict())
        load_checkpoint(plain, str(path), strict=True)
        assert_equal_states(plain.state_dict(), checkpoint['state_dict'])
        return checkpoint

    @pytest.mark.parametrize('epoch', [1, 2])
    def test_its_weights_are_the_students_under_plain_names(self, finished, epoch):
        self.check(finished, finished.folder / f'epoch_{epoch}.pth')

    def test_they_are_the_weights_of_that_epoch(self, finished):
        last = self.check(finished, finished.folder / 'epoch_2.pth')
        expected = {k: v for k, v in finished.state.items() if not k.startswith('methods.')}
        assert_equal_states(last['state_dict'], expected)
        first = read(finished.folder / 'epoch_1.pth')['state_dict']
        assert any(not torch.equal(v, first[k]) for k, v in expected.items())

    def test_the_methods_are_in_an_entry_of_their_own(self, finished):
        checkpoint = read(finished.folder / 'epoch_2.pth')
        assert list(checkpoint[METHOD_STATE]) == ['state_dict', 'methods', 'optimized']
        assert list(checkpoint[METHOD_STATE]['methods']) == ['era']
        expected = {k: v for k, v in finished.state.items() if k.startswith('methods.')}
        assert_equal_states(checkpoint[METHOD_STATE]['state_dict'], expected)
        assert any('neck.branches' in k for k in expected)

    def test_it_is_small(self, finished, teachers):
        """The teacher is not in it: student, methods and their momentum, and little else."""
        checkpoint = read(finished.folder / 'epoch_2.pth')
        tensors = [*checkpoint['state_dict'].values(), *checkpoint[METHOD_STATE]['state_dict'].values()]
        weights = sum(t.numel() * t.element_size() for t in tensors)
        others = sum(t.numel() * t.element_size() for t in read(teachers[finished.kind]['ckpt'])['state_dict'].values())
        assert os.path.getsize(finished.folder / 'epoch_2.pth') < 2 * weights + 0.5 * others

    def test_reading_it_needs_no_mmrkd(self, finished):
        modules = set()

        class Unpickler(pickle.Unpickler):
            def find_class(self, module, name):
                modules.add(module.split('.')[0])
                return super().find_class(module, name)

        torch.load(
            finished.folder / 'epoch_2.pth',
            weights_only=False,
            pickle_module=SimpleNamespace(Unpickler=Unpickler, load=pickle.load, __name__='pickle'),
        )
        assert 'torch' in modules and 'mmrkd' not in modules

    def test_it_loads_without_running_code(self, finished):
        loaded = load_checkpoint_file(str(finished.folder / 'epoch_2.pth'))
        assert METHOD_STATE in loaded and loaded['meta']['epoch'] == 2

    def test_with_ema_it_holds_the_averages(self, finished_with_ema):
        checkpoint = self.check(finished_with_ema, finished_with_ema.folder / 'epoch_2.pth')
        averages = {k[len('module.') :]: v for k, v in finished_with_ema.ema.items() if k.startswith('module.')}
        plain = {k: v for k, v in averages.items() if not k.startswith('methods.')}
        assert_equal_states(checkpoint['state_dict'], plain)
        assert any(not torch.equal(v, finished_with_ema.state[k]) for k, v in plain.items())

    def test_with_ema_the_other_weights_are_split_too(self, finished_with_ema):
        checkpoint = read(finished_with_ema.folder / 'epoch_2.pth')
        student = [k for k in finished_with_ema.state if not k.startswith('methods.')]
        methods = [k for k in finished_with_ema.state if k.startswith('methods.')]
        assert sorted(checkpoint['ema_state_dict']) == sorted(['steps', *(f'module.{k}' for k in student)])
        assert list(checkpoint[METHOD_STATE]['ema_state_dict']) == [f'module.{k}' for k in methods]
        assert list(checkpoint[METHOD_STATE]['state_dict']) == methods
        for key in student:  # mmengine swaps them: the trained weights ride in the entry of the averages
            assert torch.equal(checkpoint['ema_state_dict'][f'module.{key}'], finished_with_ema.state[key])
        for key in methods:
            averaged = finished_with_ema.ema[f'module.{key}']
            assert torch.equal(checkpoint[METHOD_STATE]['state_dict'][key], averaged)

    @pytest.mark.parametrize('ema', [False, True], ids=['', 'ema'])
    def test_the_best_checkpoint_and_the_last_ones(self, run_cfg, train, tmp_path, ema):
        hook = dict(type='CheckpointHook', interval=1, max_keep_ckpts=1, save_best='tiny/score', rule='greater')
        runner = train(run_cfg(tmp_path, ema=ema, **{'default_hooks.checkpoint': hook}))
        files = sorted(path.name for path in tmp_path.glob('*.pth'))
        assert len(files) == 2 and files[0].startswith('best_tiny_score_epoch_') and files[1] == 'epoch_2.pth'
        for name in files:
            self.check(SimpleNamespace(kind='classifier'), tmp_path / name)
            assert METHOD_STATE in read(tmp_path / name)
        hook = next(hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
        assert hook.best_ckpt_path == str(tmp_path / files[0])

    @pytest.mark.parametrize('ema', [False, True], ids=['', 'ema'])
    def test_by_iterations_and_without_the_optimiser(self, run_cfg, train, tmp_path, ema):
        hook = dict(type='CheckpointHook', by_epoch=False, interval=1, save_optimizer=False, max_keep_ckpts=2)
        train(prepare_config(run_cfg(tmp_path, ema=ema, **{'default_hooks.checkpoint': hook})))
        assert sorted(path.name for path in tmp_path.glob('*.pth')) == ['iter_3.pth', 'iter_4.pth']
        for number in (3, 4):
            checkpoint = self.check(SimpleNamespace(kind='classifier'), tmp_path / f'iter_{number}.pth')
            assert METHOD_STATE in checkpoint and 'optimizer' not in checkpoint
            assert checkpoint['meta']['iter'] == number

    def test_its_size_is_that_of_a_plain_one_and_the_state_of_the_methods(self, finished, run_cfg, train, tmp_path):
        train(run_cfg(tmp_path, finished.kind, plain=True))
        plain, found = tmp_path / 'epoch_2.pth', finished.folder / 'epoch_2.pth'

        def size(value):
            if isinstance(value, dict):
                return sum(map(size, value.values()))
            return value.numel() * value.element_size() if isinstance(value, torch.Tensor) else 0

        methods = size(read(found)[METHOD_STATE])
        momentum = size(read(found)['optimizer']['state']) - size(read(plain)['optimizer']['state'])
        assert 0 < momentum <= methods
        assert os.path.getsize(found) <= 1.05 * os.path.getsize(plain) + methods + momentum

    def test_the_running_model_is_not_split(self, finished):
        assert any(k.startswith('methods.') for k in finished.state)


class TestResume:
    def resume(self, run, run_cfg, train, folder, **changes):
        ckpt = str(run.folder / 'epoch_1.pth')
        runner = train(run_cfg(folder, run.kind, ema=bool(run.ema), resume=True, load_from=ckpt, **changes))
        assert sorted(path.name for path in folder.glob('*.pth')) == ['epoch_2.pth'], 'epoch 1 was trained again'
        return runner

    def assert_same_checkpoints(self, folder, expected):
        found, expected = read(folder / 'epoch_2.pth'), read(expected / 'epoch_2.pth')
        for entry in ('state_dict', 'ema_state_dict'):
            if entry in expected:
                assert_equal_states(found[entry], expected[entry])
            if entry in expected[METHOD_STATE]:
                assert_equal_states(found[METHOD_STATE][entry], expected[METHOD_STATE][entry])
        for index, state in expected['optimizer']['state'].items():
            assert torch.equal(found['optimizer']['state'][index]['momentum_buffer'], state['momentum_buffer'])
        assert found['param_schedulers'] == expected['param_schedulers']
        assert found['meta']['iter'] == expected['meta']['iter'] == 4

    def test_it_ends_where_the_uninterrupted_run_ended(self, finished, run_cfg, train, tmp_path):
        runner = self.resume(finished, run_cfg, train, tmp_path)
        assert_equal_states(runner.model.state_dict(), finished.state)
        self.assert_same_checkpoints(tmp_path, finished.folder)

    def test_with_ema_the_averages_do_too(self, finished_with_ema, run_cfg, train, tmp_path):
        runner = self.resume(finished_with_ema, run_cfg, train, tmp_path)
        assert_equal_states(runner.model.state_dict(), finished_with_ema.state)
        hook = next(hook for hook in runner.hooks if isinstance(hook, EMAHook))
        assert_equal_states(hook.ema_model.state_dict(), finished_with_ema.ema)
        self.assert_same_checkpoints(tmp_path, finished_with_ema.folder)

    def test_the_state_of_the_methods_matters(self, finished, run_cfg, train, tmp_path):
        """Without it the comparison above fails."""
        checkpoint = read(finished.folder / 'epoch_1.pth')
        for value in checkpoint[METHOD_STATE]['state_dict'].values():
            value.zero_()
        other = SimpleNamespace(kind=finished.kind, folder=tmp_path / 'other', ema=False)
        other.folder.mkdir()
        torch.save(checkpoint, other.folder / 'epoch_1.pth')
        (tmp_path / 'run').mkdir()
        runner = self.resume(other, run_cfg, train, tmp_path / 'run')
        assert any(not torch.equal(v, finished.state[k]) for k, v in runner.model.state_dict().items())

    def test_a_plain_checkpoint_is_refused(self, run_cfg, train, finished, tmp_path):
        checkpoint = read(finished.folder / 'epoch_1.pth')
        del checkpoint[METHOD_STATE]
        torch.save(checkpoint, tmp_path / 'plain.pth')
        cfg = run_cfg(tmp_path, finished.kind, resume=True, load_from=str(tmp_path / 'plain.pth'))
        with pytest.raises(ValueError) as error:
            train(cfg)
        message = str(error.value)
        assert 'cannot resume the distillation' in message and "'mmrkd'" in message and 'load_from' in message


class TestBridge:
    """SemiOnlineKD through whole runs: mixed precision, averages, a learning rate of its own, all variants."""

    def test_statistics_of_the_teacher_that_drift_are_resumed_and_tested(self, run_cfg, train, teachers, tmp_path):
        variants = ('student', 'bridge', 'teacher')
        changes = dict(
            methods=[dict(type='mmrkd.SemiOnlineKD', teacher_bn='train')],
            val_cfg=dict(type='mmrkd.VariantValLoop', variants=variants),
            test_cfg=dict(type='mmrkd.VariantTestLoop', variants=variants),
        )
        whole = train(run_cfg(tmp_path / 'whole', **changes))
        ckpt = str(tmp_path / 'whole' / 'epoch_1.pth')
        resumed = train(run_cfg(tmp_path / 'resumed', resume=True, load_from=ckpt, **changes))
        assert_equal_states(resumed.model.state_dict(), whole.model.state_dict())
        assert resumed.model.teacher.fingerprint() == whole.model.teacher.fingerprint()
        fresh = read(teachers['classifier']['ckpt'])['state_dict']
        assert_equal_states(whole.model.teacher.model.state_dict(), fresh)
        drifted = whole.model.methods[0].statistics.named_state()
        assert set(drifted) == {k for k in fresh if k.endswith(('running_mean', 'running_var', 'num_batches_tracked'))}
        assert not any(torch.equal(value, fresh[name]) for name, value in drifted.items())
        last = str(tmp_path / 'whole' / 'epoch_2.pth')
        metrics = Runner.from_cfg(run_cfg(tmp_path / 'tested', load_from=last, **changes)).test()
        for name in PREFIXES:
            expected = whole.message_hub.get_scalar(f'val/{name}tiny/score').current()
            assert metrics[f'{name}tiny/score'] == expected

    @pytest.mark.parametrize('kind', ['classifier', 'retinanet'])
    def test_a_run_that_was_stopped_ends_as_one_that_was_not(self, kind, run_cfg, train, tmp_path):
        hint = dict(type='mmrkd.FeatureMSELoss')
        slower = dict(custom_keys={'methods.semionlinekd.bridge': dict(lr_mult=0.5)})
        changes = dict(
            methods=[dict(type='mmrkd.SemiOnlineKD', split='layer4', feature_loss=hint)],
            ema=True,
            val_cfg=dict(type='mmrkd.VariantValLoop', variants=('student', 'bridge', 'teacher')),
            optim_wrapper=dict(
                type='mmrkd.AutocastOptimWrapper',
                paramwise_cfg=slower,
            ),
        )
        whole = train(run_cfg(tmp_path / 'whole', kind, **changes))
        ckpt = str(tmp_path / 'whole' / 'epoch_1.pth')
        resumed = train(run_cfg(tmp_path / 'resumed', kind, resume=True, load_from=ckpt, **changes))
        assert_equal_states(resumed.model.state_dict(), whole.model.state_dict())
        a, b = (next(hook for hook in runner.hooks if isinstance(hook, EMAHook)) for runner in (resumed, whole))
        assert_equal_states(a.ema_model.state_dict(), b.ema_model.state_dict())
        assert sum('bridge' in name for name in a.ema_model.state_dict()) > 10
        assert whole.model.teacher.fingerprint() == resumed.model.teacher.fingerprint()
        metrics = {name: whole.message_hub.get_scalar(f'val/{name}tiny/score').current() for name in PREFIXES}
        assert len(set(metrics.values())) == 3
        checkpoint = read(tmp_path / 'whole' / 'epoch_2.pth')
        plain = build_model(PLAIN[kind](), seed=9)
        assert list(checkpoint['state_dict']) == list(plain.state_dict())
        assert any(
            name.startswith('methods.semionlinekd.bridge.model.') for name in checkpoint[METHOD_STATE]['state_dict']
        )


class TestLoadFrom:
    def start(self, cfg):
        """Builds a runner and loads, without training."""
        runner = Runner.from_cfg(cfg)
        runner._init_model_weights()
        runner.load_or_resume()
        return runner.model

    def test_a_plain_checkpoint_fills_the_student(self, run_cfg, tmp_path):
        weights = build_model(tiny_classifier(), seed=11).state_dict()
        torch.save(dict(state_dict=weights, meta={}), tmp_path / 'plain.pth')
        model = self.start(run_cfg(tmp_path, load_from=str(tmp_path / 'plain.pth')))
        assert_equal_states(model.student.state_dict(), weights)

    def test_a_checkpoint_of_a_distillation_fills_student_and_methods_for_a_test(self, run_cfg, finished, tmp_path):
        ckpt = str(finished.folder / 'epoch_2.pth')
        model = self.start(run_cfg(tmp_path, finished.kind, load_from=ckpt))
        assert_equal_states(model.state_dict(), finished.state)

    @pytest.mark.parametrize('keep', [False, True])
    def test_a_training_that_starts_from_one_takes_its_methods_only_if_it_is_told_to(
        self, keep, run_cfg, train, finished, tmp_path
    ):
        cfg = run_cfg(tmp_path, finished.kind, load_from=str(finished.folder / 'epoch_2.pth'))
        cfg.optim_wrapper.optimizer.update(lr=0.0)
        merge = next(hook for hook in cfg.custom_hooks if hook.type == 'mmrkd.MergeCheckpointHook')
        merge.keep_methods = keep
        found = train(cfg).model.state_dict()
        weights = [k for k in finished.state if k.startswith('methods.') and k.endswith('weight') and 'branches' in k]
        assert weights and {torch.equal(found[k], finished.state[k]) for k in weights if 'norms' not in k} == {keep}
        assert torch.equal(found['backbone.conv1.weight'], finished.state['backbone.conv1.weight'])

    def test_a_plain_run_starts_from_a_checkpoint_of_a_distillation(self, run_cfg, finished, tmp_path):
        ckpt = str(finished.folder / 'epoch_2.pth')
        model = self.start(run_cfg(tmp_path, finished.kind, plain=True, load_from=ckpt))
        assert_equal_states(model.state_dict(), read(ckpt)['state_dict'])

    def test_a_plain_run_resumes_from_a_checkpoint_of_a_distillation_without_methods(self, run_cfg, train, tmp_path):
        """Off is off through a whole runner: stopped as a distillation and resumed as a plain run."""
        plain = train(run_cfg(tmp_path / 'plain', plain=True))
        train(run_cfg(tmp_path / 'distilled', methods=()))
        assert_equal_states(
            read(tmp_path / 'distilled' / 'epoch_2.pth')['state_dict'],
            read(tmp_path / 'plain/epoch_2.pth')['state_dict'],
        )
        ckpt = str(tmp_path / 'distilled' / 'epoch_1.pth')
        resumed = train(run_cfg(tmp_path / 'resumed', plain=True, resume=True, load_from=ckpt))
        assert_equal_states(resumed.model.state_dict(), plain.model.state_dict())


class TestVariantsOfAPlainCheckpoint:
    """What the methods trained is not in it; random weights must not be tested in its place."""

    @pytest.fixture
    def cfg_of(self, run_cfg, tmp_path):
        torch.save(dict(state_dict=build_model(tiny_classifier(), seed=11).state_dict()), tmp_path / 'plain.pth')

        def cfg_of(*variants):
            loop = dict(type='mmrkd.VariantTestLoop', variants=variants)
            return run_cfg(tmp_path, load_from=str(tmp_path / 'plain.pth'), test_cfg=loop)

        return cfg_of

    @pytest.mark.parametrize('variant', ['integrated', 'blend'])
    def test_what_the_methods_trained_is_refused(self, cfg_of, variant):
        with pytest.raises(ValueError) as error:
            Runner.from_cfg(cfg_of('student', variant)).test()
        message = str(error.value)
        assert f"cannot test ['{variant}']" in message and "'mmrkd'" in message

    def test_student_and_teacher_are_in_it(self, cfg_of):
        metrics = Runner.from_cfg(cfg_of('student', 'teacher')).test()
        assert {'tiny/score', 'teacher/tiny/score'} <= set(metrics)

    def test_a_training_that_starts_from_it_may_test_them_later(self, cfg_of, train):
        runner = train(cfg_of('student', 'integrated'))
        assert runner.iter == 4


class TestTheTool:
    """tools/test.py takes plain and distilled checkpoints, with plain and distillation configs."""

    @pytest.fixture
    def score(self, run_cfg, tmp_path, monkeypatch):
        def score(checkpoint, plain, *options):
            run_cfg(tmp_path, plain=plain).dump(str(tmp_path / 'config.py'))
            command = ['test.py', str(tmp_path / 'config.py'), str(checkpoint), '--work-dir', str(tmp_path / 'test')]
            monkeypatch.setattr(sys, 'argv', [*command, *options])
            runpy.run_path(str(ROOT / 'tools' / 'test.py'), run_name='__main__')
            (result,) = (tmp_path / 'test').glob('*/*.json')
            metrics = json.loads(result.read_text())
            shutil.rmtree(tmp_path / 'test')
            return metrics['tiny/score']

        return score

    def test_a_plain_one(self, score, tmp_path):
        model = build_model(tiny_classifier(), seed=11)
        torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'plain.pth')
        expected = score(tmp_path / 'plain.pth', plain=True)
        assert score(tmp_path / 'plain.pth', plain=False) == expected

    def test_a_distilled_one(self, score, finished_with_ema):
        path = finished_with_ema.folder / 'epoch_2.pth'
        plain = score(path, plain=True)
        assert plain == score(path, plain=False) == score(path, False, '--variants', 'student', 'integrated')
        assert plain != score(finished_with_ema.folder / 'epoch_1.pth', plain=True)


class TestHooksAlone:
    def checkpoint(self):
        weights = {'a': torch.zeros(1), 'methods.hold.b': torch.ones(1), 'c': torch.ones(2)}
        return dict(
            state_dict=dict(weights),
            ema_state_dict={'steps': torch.zeros(()), **{f'module.{k}': v + 1 for k, v in weights.items()}},
        )

    def runner(self):
        class Hold(DistillMethod):
            def __init__(self):
                super().__init__()
                self.b = torch.nn.Parameter(torch.zeros(1))

            def losses(self, student, teacher, samples):
                return {}

        model = torch.nn.Module()
        model.methods = MethodDict([Hold()], ['default'])
        return SimpleNamespace(model=model, _resume=True)

    def test_merging_undoes_splitting(self):
        checkpoint, runner = self.checkpoint(), self.runner()
        before = deepcopy(checkpoint)
        SplitCheckpointHook().before_save_checkpoint(runner, checkpoint)
        assert list(checkpoint['state_dict']) == ['a', 'c']
        assert list(checkpoint['ema_state_dict']) == ['steps', 'module.a', 'module.c']
        MergeCheckpointHook().after_load_checkpoint(runner, checkpoint)
        for entry, weights in before.items():
            assert checkpoint[entry].keys() == weights.keys()
            assert all(torch.equal(checkpoint[entry][k], v) for k, v in weights.items())

    def test_a_name_that_only_contains_methods_stays(self):
        checkpoint = dict(state_dict={'head.methods.weight': torch.zeros(1)})
        SplitCheckpointHook().before_save_checkpoint(self.runner(), checkpoint)
        assert list(checkpoint['state_dict']) == ['head.methods.weight']
        assert checkpoint[METHOD_STATE]['state_dict'] == {}

    def test_they_stand_on_the_right_side_of_ema(self):
        from mmengine.hooks.hook import Hook
        from mmengine.runner import get_priority

        assert get_priority(MergeCheckpointHook.priority) < get_priority(EMAHook.priority)
        assert get_priority(EMAHook.priority) < get_priority(SplitCheckpointHook.priority)
        assert issubclass(MergeCheckpointHook, Hook)


def test_moving_averages_start_from_what_the_student_inherits(run_cfg, train, tmp_path):
    """EMAHook copies the model before its weights are initialised."""
    cfg = run_cfg(tmp_path, ema=True, **{'model.methods': [], 'optim_wrapper.optimizer.lr': 0.0})
    cfg.model.teacher = save_random_teacher(tiny_classifier(), tmp_path, seed=8)
    cfg.model.init_student = 'head'
    runner = train(cfg)
    ema = next(hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook').ema_model.module
    assert torch.equal(ema.student.head.fc.weight, runner.model.teacher.model.head.fc.weight)


class TestWeightsThatAreNotFinite:
    """With several processes a loss that was not finite in another one comes in with the gradients."""

    @staticmethod
    def saved(teachers, on_nonfinite, broken):
        methods = [dict(type='mmrkd.FitNets')]
        model = build_distiller(tiny_classifier(), deepcopy(teachers['classifier']), methods, on_nonfinite=on_nonfinite)
        checkpoint = dict(state_dict=model.state_dict())
        if broken:
            checkpoint['state_dict']['backbone.conv1.weight'][0] = float('nan')
        SplitCheckpointHook().before_save_checkpoint(SimpleNamespace(model=model), checkpoint)
        return METHOD_STATE in checkpoint

    def test_nothing_is_saved(self, teachers, monkeypatch):
        monkeypatch.setattr('mmrkd.engine.hooks.checkpoint_hooks.get_world_size', lambda: 2)
        with pytest.raises(ValueError, match=r'nothing is saved: 1 weights are not finite \(backbone.conv1.weight\)'):
            self.saved(teachers, 'stop', broken=True)
        assert self.saved(teachers, 'stop', broken=False)

    def test_who_ignores_them_saves_them(self, teachers, monkeypatch):
        monkeypatch.setattr('mmrkd.engine.hooks.checkpoint_hooks.get_world_size', lambda: 2)
        assert self.saved(teachers, 'ignore', broken=True)
