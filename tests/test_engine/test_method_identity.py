"""A method is its name: what a checkpoint knows of it does not depend on its place in the list."""

from copy import deepcopy

import pytest
import torch

from mmrkd.checkpoint import METHOD_STATE
from mmrkd.engine import optimizer_state
from mmrkd.export import export, load_distiller
from mmrkd.registry import MODELS
from mmrkd.testing import build_distiller, build_model, classification_batch, model_inputs, tiny_classifier

ERA = dict(type='mmrkd.ERA', num_branches=2)
HINT = dict(type='mmrkd.FitNets')
BRIDGE = dict(type='mmrkd.SemiOnlineKD')


def read(path):
    return torch.load(path, weights_only=False)


def states_of(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


@pytest.fixture(scope='module')
def whole(run_cfg, train, tmp_path_factory):
    """Two epochs of three methods, uninterrupted, with a momentum and a learning rate that falls."""
    folder = tmp_path_factory.mktemp('whole')
    return folder, states_of(train(run_cfg(folder, methods=(ERA, HINT, BRIDGE))).model)


class TestOrder:
    """Stopped after an epoch and resumed with the list in another order: nothing changes, to the bit."""

    @pytest.mark.parametrize('order', [(ERA, HINT, BRIDGE), (BRIDGE, ERA, HINT), (HINT, BRIDGE, ERA)])
    def test_it_does_not_matter(self, whole, order, run_cfg, train, tmp_path):
        folder, expected = whole
        cfg = run_cfg(tmp_path, methods=order, resume=True, load_from=str(folder / 'epoch_1.pth'))
        assert_equal(states_of(train(cfg).model), expected)

    def test_nor_with_a_learning_rate_for_each_part(self, run_cfg, train, tmp_path):
        """Then each parameter is a group of the optimiser, and the schedules hold a list over the groups."""
        slower = dict(custom_keys={'methods.semionlinekd.bridge': dict(lr_mult=0.5), 'backbone': dict(lr_mult=0.3)})
        changes = dict(optim_wrapper=dict(paramwise_cfg=slower))
        expected = states_of(train(run_cfg(tmp_path / 'whole', methods=(ERA, BRIDGE), **changes)).model)
        ckpt = str(tmp_path / 'whole' / 'epoch_1.pth')
        cfg = run_cfg(tmp_path / 'other', methods=(BRIDGE, ERA), resume=True, load_from=ckpt, **changes)
        assert_equal(states_of(train(cfg).model), expected)

    def test_numbered_methods_are_told_apart_by_their_arguments(self, run_cfg, train, tmp_path):
        first, second = HINT, dict(HINT, w_feat=3.0)
        expected = states_of(train(run_cfg(tmp_path / 'whole', methods=(first, second))).model)
        ckpt = str(tmp_path / 'whole' / 'epoch_1.pth')
        cfg = run_cfg(tmp_path / 'other', methods=(second, first), resume=True, load_from=ckpt)
        found = states_of(train(cfg).model)
        swapped = {
            key.replace('fitnets_2', 'x').replace('fitnets', 'fitnets_2').replace('x', 'fitnets'): value
            for key, value in found.items()
        }
        assert_equal(swapped, expected)

    def test_a_name_of_its_own_makes_the_state_its_own(self, run_cfg, train, tmp_path):
        methods = dict(HINT, name='hint_a'), dict(HINT, name='hint_b', w_feat=3.0)
        expected = states_of(train(run_cfg(tmp_path / 'whole', methods=methods)).model)
        assert {key.split('.')[1] for key in expected if key.startswith('methods.')} == {'hint_a', 'hint_b'}
        ckpt = str(tmp_path / 'whole' / 'epoch_1.pth')
        cfg = run_cfg(tmp_path / 'other', methods=methods[::-1], resume=True, load_from=ckpt)
        assert_equal(states_of(train(cfg).model), expected)


class TestAddingAndRemoving:
    def resumed(self, folder, methods, run_cfg, tmp_path, **changes):
        """The runner as it stands when the first step would come."""
        from mmengine.runner import Runner

        cfg = run_cfg(tmp_path, methods=methods, resume=True, load_from=str(folder / 'epoch_1.pth'), **changes)
        runner = Runner.from_cfg(cfg)
        runner._train_loop = runner.build_train_loop(runner._train_loop)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
        runner._init_model_weights()
        runner.load_or_resume()
        return runner

    def momentum(self, runner):
        names = {id(p): name for name, p in runner.model.named_parameters()}
        state = runner.optim_wrapper.optimizer.state
        return {names[id(p)]: entry['momentum_buffer'] for p, entry in state.items() if 'momentum_buffer' in entry}

    @pytest.mark.parametrize('methods', [(HINT, ERA), (ERA,), (dict(type='mmrkd.KD'), BRIDGE, ERA)])
    def test_the_others_keep_weights_and_momentum(self, whole, methods, run_cfg, tmp_path):
        folder, _ = whole
        saved = read(folder / 'epoch_1.pth')
        names = [name for group in saved[METHOD_STATE]['optimized'][''] for name in group]
        expected = dict(zip(names, (s['momentum_buffer'] for s in saved['optimizer']['state'].values())))
        runner = self.resumed(folder, methods, run_cfg, tmp_path)
        everything = {**saved['state_dict'], **saved[METHOD_STATE]['state_dict']}
        assert_equal(states_of(runner.model), {k: everything[k] for k in runner.model.state_dict()})
        found = self.momentum(runner)
        own = set(saved['state_dict'])
        assert found.keys() == {n for n in expected if n in own or n in runner.model.state_dict()}
        assert all(torch.equal(value, expected[name]) for name, value in found.items())

    def test_one_that_is_new_starts_afresh_at_the_present_learning_rate(self, whole, run_cfg, tmp_path, capsys):
        folder, _ = whole
        new = dict(type='mmrkd.FitNets', name='another')
        slower = dict(optim_wrapper=dict(paramwise_cfg=dict(custom_keys={'methods.another': dict(lr_mult=0.5)})))
        train_cfg = dict(methods=(HINT,), **slower)
        runner = self.resumed(self.one_epoch(run_cfg, tmp_path, train_cfg), (new, HINT), run_cfg, tmp_path, **slower)
        names = {id(p): name for name, p in runner.model.named_parameters()}
        groups = runner.optim_wrapper.optimizer.param_groups
        rates = {names[id(p)]: g['lr'] for g in groups for p in g['params']}
        assert rates['methods.fitnets.projection.layers.0.weight'] == rates['head.fc.weight'] == pytest.approx(1e-3)
        assert rates['methods.another.projection.layers.0.weight'] == pytest.approx(5e-4)
        bases = dict(zip((names[id(g['params'][0])] for g in groups), runner.param_schedulers[0].base_values))
        assert bases['methods.another.projection.layers.0.weight'] == pytest.approx(5e-3)
        assert bases['head.fc.weight'] == pytest.approx(1e-2)

    def one_epoch(self, run_cfg, tmp_path, changes):
        from mmengine.runner import Runner

        folder = tmp_path / 'before'
        Runner.from_cfg(run_cfg(folder, **changes)).train()
        return folder

    def test_what_is_left_over_and_what_is_missing_is_named(self, whole, run_cfg, tmp_path, monkeypatch):
        folder, _ = whole
        said = []
        monkeypatch.setattr('mmrkd.models.method_state.print_log', lambda text, *_: said.append(text))
        self.resumed(folder, (dict(HINT, name='another'), ERA), run_cfg, tmp_path)
        assert any("left over in the checkpoint: the methods ['fitnets', 'semionlinekd']" in text for text in said)
        assert any("not in the checkpoint: the methods ['another']" in text for text in said)

    @pytest.mark.parametrize(
        'method, message',
        [
            (dict(ERA, num_branches=3), r"'era'.*missing keys \(neck.branches.2"),
            (dict(ERA, num_branches=1), r"'era'.*unexpected keys \(neck.branches.1"),
            (dict(type='mmrkd.ERA', num_branches=2, wiring='mix'), "'era'.*missing keys.*neck.alpha"),
            (dict(HINT, name='era'), "a ERA called 'era', and the distillation a FitNets"),
        ],
    )
    def test_a_state_that_does_not_fit_is_refused(self, whole, method, message, run_cfg, tmp_path):
        folder, _ = whole
        with pytest.raises(ValueError, match=message):
            self.resumed(folder, (method,), run_cfg, tmp_path)


class TestOlderCheckpoints:
    """They know methods by their place in the list, the teacher by one hash, and some parts by other names."""

    def old(self, folder, tmp_path, order):
        checkpoint = read(folder / 'epoch_1.pth')
        saved = checkpoint[METHOD_STATE]
        place = {name: index for index, name in enumerate(order)}

        def named(key):
            name, rest = key[len('methods.') :].split('.', 1)
            return f'methods.{place[name]}.' + rest.replace('projection.layers.', 'projections.')

        checkpoint[METHOD_STATE] = dict(state_dict={named(k): v for k, v in saved['state_dict'].items()})
        run = checkpoint.get('mmrkd_run')
        if run is not None:
            run['teacher'] = run.pop('teachers')['default']
        torch.save(checkpoint, tmp_path / 'old.pth')
        return str(tmp_path / 'old.pth')

    def test_a_run_goes_on_from_one(self, whole, run_cfg, train, tmp_path, monkeypatch):
        folder, expected = whole
        said = []
        monkeypatch.setattr('mmrkd.models.method_state.print_log', lambda text, *_: said.append(text))
        ckpt = self.old(folder, tmp_path, ('era', 'fitnets', 'semionlinekd'))
        cfg = run_cfg(tmp_path / 'run', methods=(ERA, HINT, BRIDGE), resume=True, load_from=ckpt)
        assert_equal(states_of(train(cfg).model), expected)
        assert any('an older checkpoint' in text for text in said)

    def test_a_list_that_is_shorter_is_refused(self, whole, run_cfg, train, tmp_path):
        ckpt = self.old(whole[0], tmp_path, ('era', 'fitnets', 'semionlinekd'))
        with pytest.raises(ValueError, match='a method number 2.*has only 2 methods'):
            train(run_cfg(tmp_path / 'run', methods=(ERA, HINT), resume=True, load_from=ckpt))

    def test_it_can_be_exported(self, whole, run_cfg, tmp_path):
        ckpt = self.old(whole[0], tmp_path, ('era', 'fitnets', 'semionlinekd'))
        distiller = load_distiller(run_cfg(tmp_path, methods=(ERA, HINT, BRIDGE)), ckpt)
        expected = read(whole[0] / 'epoch_1.pth')[METHOD_STATE]['state_dict']
        assert_equal({k: v for k, v in distiller.state_dict().items() if k.startswith('methods.')}, expected)


class TestTwoERAs:
    """Each has an integrated variant of its own, evaluated and exported with its own weights."""

    @pytest.fixture
    def cfg(self, run_cfg, tmp_path):
        methods = (ERA, dict(type='mmrkd.ERA', num_branches=1, neck=dict(act='gelu')))
        variants = ('student', 'era.integrated', 'era_2.integrated')
        return run_cfg(tmp_path, methods=methods, val_cfg=dict(type='mmrkd.VariantValLoop', variants=variants))

    def test_both_are_evaluated_and_exported(self, cfg, train, tmp_path):
        runner = train(cfg)
        scores = {
            v: runner.message_hub.get_scalar(f'val/{v}tiny/score').current()
            for v in ('', 'era.integrated/', 'era_2.integrated/')
        }
        assert len(set(scores.values())) == 3
        batch, distiller = classification_batch(), runner.model.eval()
        for variant in ('era.integrated', 'era_2.integrated'):
            config, weights = export(cfg, str(tmp_path / 'epoch_2.pth'), str(tmp_path / 'out'), variant)
            from mmengine.config import Config

            model = MODELS.build(Config.fromfile(config).model).eval()
            model.load_state_dict(torch.load(weights, weights_only=True)['state_dict'], strict=True)
            distiller.set_variant(variant)
            inputs, samples = model_inputs(distiller, batch, False)
            expected = [s.pred_score for s in distiller(inputs, deepcopy(samples), mode='predict')]
            found = [s.pred_score for s in model(inputs, deepcopy(samples), mode='predict')]
            assert all(torch.equal(a, b) for a, b in zip(found, expected))

    def test_their_blends_mix_their_own(self, cfg):
        distiller = build_model(cfg.model)
        assert distiller.variants['era_2.blend'].parts == ('student', 'era_2.integrated')


def test_load_from_brings_the_student_alone(run_cfg, train, tmp_path, teachers):
    """What methods learnt in an earlier stage belongs to another teacher, even where every shape agrees."""
    train(run_cfg(tmp_path / 'first', methods=(HINT,)))
    saved = read(tmp_path / 'first' / 'epoch_2.pth')
    cfg = run_cfg(tmp_path / 'second', methods=(HINT,), load_from=str(tmp_path / 'first' / 'epoch_2.pth'))
    cfg.optim_wrapper.optimizer.lr = 0.0
    model = train(cfg).model
    student = model.student.state_dict()
    assert all(torch.equal(student[k], v) for k, v in saved['state_dict'].items() if v.dtype.is_floating_point
               and 'running' not in k)  # fmt: skip
    fresh = build_distiller(tiny_classifier(), dict(teachers['classifier']), [HINT], seed=3).methods['fitnets']
    own, old = model.methods['fitnets'], saved[METHOD_STATE]['state_dict']
    assert own.projection.layers[0].weight.shape == fresh.projection.layers[0].weight.shape
    assert not torch.equal(own.projection.layers[0].weight, old['methods.fitnets.projection.layers.0.weight'])


class TestReorderingAlone:
    """The arithmetic of :mod:`mmrkd.engine.optimizer_state` on hand-made states."""

    def optimizer(self, *groups):
        parameters = {name: torch.nn.Parameter(torch.zeros(1)) for group in groups for name in group}
        model = torch.nn.Module()
        model.named_parameters = lambda: iter(parameters.items())
        optimizer = torch.optim.SGD([dict(params=[parameters[n] for n in g], lr=0.1) for g in groups])
        return optimizer, model

    def test_states_follow_their_names(self):
        from types import SimpleNamespace

        optimizer, model = self.optimizer(['student.a', 'methods.x.p', 'methods.new.q', 'student.b'])
        checkpoint = dict(
            optimizer=dict(
                state={0: 'state of a', 1: 'state of b', 2: 'state of p', 3: 'of what is gone'},
                param_groups=[dict(lr=0.05, initial_lr=0.1, params=[0, 1, 2, 3])],
            ),
            param_schedulers=[dict(base_values=[0.1], _last_value=[0.05], last_step=7)],
        )
        saved = {'': [['student.a', 'student.b', 'methods.old.p', 'methods.gone.r']]}
        wrapper = SimpleNamespace(optimizer=optimizer)
        optimizer_state.rearrange(checkpoint, saved, wrapper, model, dict(old='x', gone='gone'))
        assert checkpoint['optimizer'] == dict(
            state={0: 'state of a', 1: 'state of p', 3: 'state of b'},
            param_groups=[dict(lr=0.05, initial_lr=0.1, params=[0, 1, 2, 3])],
        )
        assert checkpoint['param_schedulers'] == [dict(base_values=[0.1], _last_value=[0.05], last_step=7)]

    def test_what_is_in_its_place_is_not_touched(self):
        from types import SimpleNamespace

        optimizer, model = self.optimizer(['student.a'], ['student.b'])
        checkpoint = dict(optimizer=object())
        saved = {'': [['student.a'], ['student.b']]}
        optimizer_state.rearrange(checkpoint, saved, SimpleNamespace(optimizer=optimizer), model, {})
        assert list(checkpoint) == ['optimizer']
