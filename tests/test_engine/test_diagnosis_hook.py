"""A diagnosis leaves a training as it is, and survives a kill."""

import json
from copy import deepcopy

import numpy as np
import pytest
import torch
from mmengine.config import Config

import mmrkd
from mmrkd.checkpoint import FACTS
from mmrkd.diagnosis import Facts
from mmrkd.engine.compose import compose
from mmrkd.engine.hooks import DiagnosisHook
from mmrkd.engine.prepare import prepare_config
from mmrkd.registry import type_name

FITNETS = dict(type='mmrkd.FitNets', w_feat=1.0)


@pytest.fixture
def detect(squares, tmp_path, killed):
    """Returns a function that trains a detector which draws random numbers everywhere it can; 3 epochs of 2 steps."""

    def detect(name, diagnosis, kill=None, resume=False, **changes):
        cfg = compose(Config.fromfile(squares.student), squares.teacher, squares.ckpt, ['era', 'fitnets'])
        cfg = Config(deepcopy(cfg._cfg_dict))
        cfg.train_dataloader.dataset.pipeline[2:2] = [
            dict(type='RandomFlip', prob=0.5),
            dict(type='PhotoMetricDistortion'),
        ]
        hooks = [dict(type='EMAHook', momentum=0.5)] + ([dict(type='KillBefore', iteration=kill)] if kill else [])
        run = dict(work_dir=str(tmp_path / name), experiment_name=f'{tmp_path.name} {name} {kill}', launcher='none')
        cfg.merge_from_dict(
            dict(run, custom_hooks=hooks, diagnosis=diagnosis, check=False, resume=resume, log_level='ERROR', **changes)
        )
        cfg.train_cfg.max_epochs = 3
        runner = mmrkd.Runner.from_cfg(cfg)
        runner.train()
        return runner

    return detect


def end_of(runner):
    weights = dict(runner.model.state_dict(), teacher=runner.model.teacher.fingerprint())
    for ema in [hook.ema_model for hook in runner.hooks if hasattr(hook, 'ema_model')]:
        weights.update({f'ema {key}': value for key, value in ema.state_dict().items()})
    modes = [module.training for module in runner.model.modules()]
    return dict(weights, modes=modes, rng=torch.get_rng_state(), numpy=str(np.random.get_state()))


def assert_same(found, expected):
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert torch.equal(found[key], value) if torch.is_tensor(value) else found[key] == value, key


def measured(folder):
    return Facts(**json.loads((folder / 'facts.json').read_text()))


@pytest.fixture
def often(monkeypatch):
    """Lets every second iteration of a short run be measured."""
    monkeypatch.setattr('mmrkd.engine.hooks.diagnosis_hook.SPARSE', 2)


def test_the_training_is_the_same_bit_for_bit_also_after_a_kill(detect, often, tmp_path, killed):
    plain = end_of(detect('plain', False))
    assert not (tmp_path / 'plain' / 'facts.json').exists()
    looked_at = detect('looked at', dict(images=4))
    assert_same(end_of(looked_at), plain)
    facts = measured(tmp_path / 'looked at')
    assert facts.unmeasured == {} and facts.val_images == facts.train_images == 4
    assert {name: len(shares) for name, shares in facts.gradient_shares.items()} == dict(era=3, fitnets=3)
    assert len(facts.residual_explained['era']) == 3 and [step for step, _ in facts.curve] == [1, 2, 3]
    assert facts.metric == 'coco/bbox_mAP' and facts.task == 'detection' and facts.peak_rate == facts.final_rate == 0.01
    assert facts.teacher_val > 10, 'in percent, with the annotations of these images only'

    with pytest.raises(killed):
        detect('killed', dict(images=4), kill=4)
    assert not (tmp_path / 'killed' / 'facts.json').exists()
    resumed = detect('killed', dict(images=4), resume=True)
    assert_same(end_of(resumed), plain)
    assert measured(tmp_path / 'killed') == facts
    checkpoint = torch.load(tmp_path / 'killed' / 'epoch_2.pth', weights_only=False)
    assert [step for step, _ in checkpoint[FACTS]['curve']] == [1], 'the validation follows the checkpoint'
    assert len(checkpoint[FACTS]['gradient_shares']['era']) == 2


def test_what_fails_does_not_end_the_training_and_is_said(classify, quarters_teacher, monkeypatch, tmp_path):
    def broken(*_args, **_kwargs):
        torch.rand(3), np.random.rand()
        raise RuntimeError('out of everything\nsecond line')

    plain = end_of(classify(quarters_teacher(steps=0), FITNETS, epochs=1, diagnosis=False))
    for name in ('measure_step', 'measure_metrics', 'found_metric'):
        monkeypatch.setattr(f'mmrkd.engine.hooks.diagnosis_hook.{name}', broken)
    assert_same(end_of(classify(quarters_teacher(steps=0), FITNETS, epochs=1)), plain)
    facts = measured(tmp_path / 'run')
    reason = 'RuntimeError: out of everything'
    assert facts.unmeasured == {'gradients': reason, 'curve': reason, 'metrics of student and teacher': reason}
    assert reason in (tmp_path / 'run' / 'diagnosis.md').read_text()


class TestSettings:
    def hooks(self, run_cfg, tmp_path, **changes):
        cfg = run_cfg(tmp_path, **changes)
        return [hook for hook in prepare_config(prepare_config(cfg)).custom_hooks if 'Diagnosis' in type_name(hook)]

    def test_it_is_there_once_unless_it_is_not_wanted(self, run_cfg, tmp_path):
        assert self.hooks(run_cfg, tmp_path) == [dict(type='mmrkd.DiagnosisHook')]
        assert self.hooks(run_cfg, tmp_path, diagnosis=True) == [dict(type='mmrkd.DiagnosisHook')]
        given = dict(type='mmrkd.DiagnosisHook', samples=3)
        assert self.hooks(run_cfg, tmp_path, diagnosis=dict(samples=3)) == [given]
        for own in (dict(type='mmrkd.DiagnosisHook', samples=2), dict(type=DiagnosisHook)):
            assert self.hooks(run_cfg, tmp_path, custom_hooks=[own]) == [own]
            assert self.hooks(run_cfg, tmp_path, custom_hooks=[own], diagnosis=False) == []
        assert self.hooks(run_cfg, tmp_path, diagnosis=False) == []
        assert self.hooks(run_cfg, tmp_path, plain=True) == []

    @pytest.mark.parametrize('diagnosis', ['off', dict(image=3), 3])
    def test_what_means_nothing_is_refused(self, diagnosis, run_cfg, tmp_path):
        with pytest.raises(ValueError, match='diagnosis: expected dict'):
            self.hooks(run_cfg, tmp_path, diagnosis=diagnosis)

    @pytest.mark.parametrize('options', [dict(samples=-1), dict(images=0)])
    def test_numbers_out_of_range(self, options):
        with pytest.raises(ValueError, match='expected samples >= 0 and images >= 1'):
            DiagnosisHook(**options)

    def test_samples_are_spread_evenly_and_few(self):
        class Loop:
            max_iters = 1000

        class Run:
            train_loop, model = Loop(), torch.nn.Linear(1, 1)

        hook = DiagnosisHook(samples=4)
        for length, expected in ((1000, {125, 375, 625, 875}), (45, {11, 33}), (3, {1})):
            Run.train_loop.max_iters = length
            hook.before_train(Run)
            assert hook.sampled == expected
