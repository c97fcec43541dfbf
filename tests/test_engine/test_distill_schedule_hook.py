from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import Runner

from mmrkd.engine import DistillScheduleHook, prepare_config
from mmrkd.testing import build_distiller, build_model, classification_batch, tiny_classifier


def scheduled(cfg, **schedule):
    cfg.custom_hooks = [*cfg.custom_hooks, dict(type='mmrkd.DistillScheduleHook', **schedule)]
    return prepare_config(cfg)


class TestFactor:
    @pytest.mark.parametrize(
        'progress, expected', [(0, 0), (1.9, 0), (2, 0), (3, 0.25), (6, 1), (8, 1), (9, 0.75), (11.5, 0.125), (12, 0)]
    )
    def test_linear(self, progress, expected):
        hook = DistillScheduleHook(begin=2, warmup=4, decay=8, end=12)
        assert hook.factor(progress) == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize('progress, expected', [(7, 1), (8, 1), (9, 0.75), (10, 0.5), (11, 0.25), (12, 0)])
    def test_cosine(self, progress, expected):
        """(1 + cos(pi t)) / 2 at t = 0, 1/3, 1/2, 2/3, 1."""
        hook = DistillScheduleHook(decay=7, end=13, shape='cosine')
        t = (progress - 7) / 6
        assert hook.factor(progress) == pytest.approx((1 + torch.cos(torch.tensor(torch.pi * t)).item()) / 2, abs=1e-6)
        assert DistillScheduleHook(decay=8, end=12).factor(progress) == pytest.approx(expected)

    def test_without_arguments_it_is_one(self):
        assert [DistillScheduleHook().factor(p) for p in (0, 1, 1e6)] == [1, 1, 1]

    def test_a_sudden_end(self):
        hook = DistillScheduleHook(end=3)
        assert [hook.factor(p) for p in (0, 2.99, 3, 4)] == [1, 1, 0, 0]

    @pytest.mark.parametrize(
        'arguments',
        [dict(begin=-1), dict(warmup=5, end=4), dict(decay=5, end=4), dict(decay=5), dict(warmup=-1)],
        ids=str,
    )
    def test_numbers_out_of_order_are_refused(self, arguments):
        with pytest.raises(ValueError, match='expected 0 <= begin'):
            DistillScheduleHook(**arguments)

    def test_another_shape_is_refused(self):
        with pytest.raises(ValueError, match="shape must be 'linear' or 'cosine'"):
            DistillScheduleHook(shape='step')


class TestHook:
    def runner(self, iteration):
        model = torch.nn.Module()
        model.methods = dict(era=SimpleNamespace(scale=1.0), fitnets=SimpleNamespace(scale=1.0))
        return SimpleNamespace(model=model, iter=iteration, train_dataloader=range(10))

    @pytest.mark.parametrize('by_epoch, expected', [(True, 0.75), (False, 1.0)])
    def test_progress_in_epochs_and_iterations(self, by_epoch, expected):
        runner = self.runner(iteration=15)
        DistillScheduleHook(warmup=2, by_epoch=by_epoch).before_train_iter(runner, 0)
        assert [method.scale for method in runner.model.methods.values()] == [expected] * 2

    def test_one_of_several_methods(self):
        runner = self.runner(iteration=15)
        DistillScheduleHook(end=1, method='fitnets').before_train_iter(runner, 0)
        assert [method.scale for method in runner.model.methods.values()] == [1, 0]

    def test_an_unknown_method_is_refused_before_the_first_iteration(self):
        with pytest.raises(ValueError, match=r"has the methods \['era', 'fitnets'\], but none is called 'kd'"):
            DistillScheduleHook(method='kd').before_train(self.runner(0))


class TestTraining:
    @pytest.fixture
    def distiller(self, teachers):
        methods = [dict(type='mmrkd.ERA'), dict(type='mmrkd.FitNets')]
        return build_distiller(tiny_classifier(), deepcopy(teachers['classifier']), methods).train()

    def step(self, model, optimizer, seed):
        data = model.data_preprocessor(classification_batch(seed=seed), True)
        loss, _ = model.parse_losses(model(**data, mode='loss'))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    @pytest.mark.parametrize('scale', [0.0, 0.5])
    def test_the_terms_are_scaled_and_those_of_the_student_are_not(self, distiller, scale):
        data = distiller.data_preprocessor(classification_batch(), True)
        expected = deepcopy(distiller)(**data, mode='loss')
        for method in distiller.methods.values():
            method.scale = scale
        found = distiller(**data, mode='loss')
        for name, value in expected.items():
            if '.' not in name:
                assert torch.equal(found[name], value)
            elif scale:
                torch.testing.assert_close(found[name], value * scale)
        assert scale or list(found) == ['loss']

    def test_after_the_end_the_training_is_the_plain_one_and_the_teacher_rests(self, distiller):
        optimizer = torch.optim.SGD(distiller.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-3)
        calls = []
        distiller.teacher.model.backbone.register_forward_hook(lambda *_: calls.append(1))
        for seed in range(2):
            self.step(distiller, optimizer, seed)
        assert len(calls) == 2
        plain = build_model(tiny_classifier(), seed=7).train()
        plain.load_state_dict(distiller.student.state_dict())
        plain_optimizer = torch.optim.SGD(plain.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-3)
        for own, other in zip(plain.parameters(), distiller.student.parameters()):
            plain_optimizer.state[own] = deepcopy(optimizer.state[other])
        for method in distiller.methods.values():
            method.scale = 0.0
        methods = deepcopy(distiller.methods.state_dict())
        for seed in range(2, 5):
            self.step(distiller, optimizer, seed)
            self.step(plain, plain_optimizer, seed)
        assert len(calls) == 2
        for name, value in plain.state_dict().items():
            assert torch.equal(distiller.student.state_dict()[name], value), name
        for name, value in methods.items():
            assert torch.equal(distiller.methods.state_dict()[name], value), name

    def test_a_run_that_stops_distilling_at_an_epoch(self, run_cfg, train, tmp_path):
        """And one that never began is the plain run, bit for bit."""
        calls = {}
        for end in (0, 1):
            cfg = scheduled(run_cfg(tmp_path / str(end), diagnosis=False), end=end)  # which looks at the teacher, too
            runner = Runner.from_cfg(cfg)
            seen = calls.setdefault(end, [])
            runner.model.teacher.model.backbone.register_forward_hook(lambda *_, seen=seen: seen.append(1))
            runner.train()
        assert {end: len(seen) for end, seen in calls.items()} == {0: 0, 1: 2}  # two iterations an epoch
        plain = train(run_cfg(tmp_path / 'plain', plain=True)).model.state_dict()
        ends = [torch.load(tmp_path / str(end) / 'epoch_2.pth', weights_only=False)['state_dict'] for end in (0, 1)]
        assert all(torch.equal(ends[0][name], value) for name, value in plain.items())
        assert any(not torch.equal(ends[1][name], value) for name, value in plain.items())
