import pytest
import torch
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmrkd.engine import VariantTestLoop, VariantValLoop

VARIANTS = ('student', 'integrated', 'teacher')
OWN_HOOKS = [dict(type=f'mmrkd.{name}') for name in ('SplitCheckpointHook', 'MergeCheckpointHook')]


@pytest.fixture
def calls():
    """Registers a hook that notes down the stages of an evaluation."""
    calls = []

    def note(stage):
        def method(self, runner, **kwargs):
            model = getattr(runner.model, 'module', runner.model)
            calls.append((stage, model.variant))
            if 'metrics' in kwargs:
                calls.append(('metrics', sorted(kwargs['metrics'])))

        return method

    stages = [f'{when}_{what}' for when in ('before', 'after') for what in ('val', 'val_epoch', 'test', 'test_epoch')]
    HOOKS.register_module(name='Note', module=type('Note', (Hook,), {stage: note(stage) for stage in stages}))
    return calls


def scores(runner, dataloader, variant):
    """Mean score of a variant, computed by hand."""
    runner.model.eval()
    runner.model.set_variant(variant)
    found = [sample.pred_score[0] for batch in dataloader for sample in runner.model.val_step(batch)]
    runner.model.set_variant('student')
    return torch.stack(found).mean().item()


def evaluate(run_cfg, folder, stage, **changes):
    """Builds a runner, evaluates once, returns both."""
    loop = dict(type='mmrkd.VariantValLoop' if stage == 'val' else 'mmrkd.VariantTestLoop', variants=VARIANTS)
    runner = Runner.from_cfg(run_cfg(folder, **{f'{stage}_cfg': loop, **changes}))
    return runner, getattr(runner, stage)()


@pytest.mark.parametrize('stage', ['val', 'test'])
class TestEachVariant:
    def test_metrics_of_all_variants(self, run_cfg, tmp_path, stage):
        runner, metrics = evaluate(run_cfg, tmp_path, stage)
        assert isinstance(getattr(runner, f'{stage}_loop'), VariantValLoop if stage == 'val' else VariantTestLoop)
        names = ('tiny/score', 'integrated/tiny/score', 'teacher/tiny/score')
        assert [name for name in metrics if name.endswith('score')] == list(names)
        assert len({metrics[name] for name in names}) == 3
        dataloader = runner.val_dataloader if stage == 'val' else runner.test_dataloader
        for variant, name in zip(VARIANTS, names):
            assert metrics[name] == pytest.approx(scores(runner, dataloader, variant), rel=1e-5)
            assert metrics[name.replace('score', 'images')] == 8

    def test_hooks_are_called_once_around_all_of_them(self, run_cfg, tmp_path, stage, calls):
        _, metrics = evaluate(run_cfg, tmp_path, stage, custom_hooks=[dict(type='Note'), *OWN_HOOKS])
        assert calls == [
            (f'before_{stage}', 'student'),
            (f'before_{stage}_epoch', 'student'),
            (f'after_{stage}_epoch', 'student'),
            ('metrics', sorted(metrics)),
            (f'after_{stage}', 'student'),
        ]

    def test_the_variant_is_restored(self, run_cfg, tmp_path, stage):
        runner, _ = evaluate(run_cfg, tmp_path, stage, **{'model.variant': 'integrated'})
        assert runner.model.variant == 'integrated'

    def test_the_variant_is_restored_after_an_error(self, run_cfg, tmp_path, stage):
        loop = dict(type=f'mmrkd.Variant{stage.capitalize()}Loop', variants=('student', 'teacher'))
        runner = Runner.from_cfg(run_cfg(tmp_path, **{f'{stage}_cfg': loop}))
        runner.model.pair.convert = None  # the student predicts, the teacher cannot
        with pytest.raises(AttributeError):
            getattr(runner, stage)()
        assert runner.model.variant == 'student'

    def test_a_variant_that_cannot_be_is_refused_before_anything_runs(self, run_cfg, tmp_path, stage, calls):
        loop = dict(type=f'mmrkd.Variant{stage.capitalize()}Loop', variants=('student', 'bridge'))
        cfg = run_cfg(tmp_path, custom_hooks=[dict(type='Note')], **{f'{stage}_cfg': loop})
        runner = Runner.from_cfg(cfg)
        with pytest.raises(ValueError, match="no variant 'bridge'"):
            getattr(runner, stage)()
        assert runner.model.variant == 'student' and not calls

    def test_by_default_it_is_the_plain_loop(self, run_cfg, tmp_path, stage):
        plain = getattr(Runner.from_cfg(run_cfg(tmp_path / 'plain')), stage)()
        loop = dict(type=f'mmrkd.Variant{stage.capitalize()}Loop')
        assert getattr(Runner.from_cfg(run_cfg(tmp_path / 'variants', **{f'{stage}_cfg': loop})), stage)() == plain


class TestInTraining:
    def test_the_best_checkpoint_is_that_of_the_student(self, run_cfg, train, tmp_path):
        runner = train(
            run_cfg(
                tmp_path,
                val_cfg=dict(type='mmrkd.VariantValLoop', variants=('student', 'integrated')),
                default_hooks=dict(
                    checkpoint=dict(type='CheckpointHook', interval=1, save_best='tiny/score', rule='greater')
                ),
            )
        )
        hook = next(hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
        saved = torch.load(hook.best_ckpt_path, weights_only=False)
        history = runner.message_hub.get_scalar('val/tiny/score').data[0]
        assert len(history) == 2
        assert runner.message_hub.get_info('best_score') == pytest.approx(max(history))
        assert saved['meta']['epoch'] == 1 + int(history.argmax())
        assert len(runner.message_hub.get_scalar('val/integrated/tiny/score').data[0]) == 2

    def test_training_is_not_changed(self, run_cfg, train, tmp_path):
        plain = train(run_cfg(tmp_path / 'plain')).model.state_dict()
        cfg = run_cfg(tmp_path / 'variants', val_cfg=dict(type='mmrkd.VariantValLoop', variants=VARIANTS))
        for key, value in train(cfg).model.state_dict().items():
            assert torch.equal(value, plain[key]), key

    def test_all_variants_are_those_of_the_averaged_weights(self, run_cfg, train, tmp_path):
        cfg = run_cfg(tmp_path, ema=True, val_cfg=dict(type='mmrkd.VariantValLoop', variants=VARIANTS))
        cfg.optim_wrapper.optimizer.lr = 0.1  # far enough that the averages differ
        runner = train(cfg)
        ema = next(hook for hook in runner.hooks if isinstance(hook, EMAHook))
        for variant, name in (('student', 'tiny/score'), ('integrated', 'integrated/tiny/score')):
            reported = runner.message_hub.get_scalar(f'val/{name}').current()
            trained = scores(runner, runner.val_dataloader, variant)
            ema._swap_ema_parameters()
            averaged = scores(runner, runner.val_dataloader, variant)
            ema._swap_ema_parameters()
            assert reported == pytest.approx(averaged, rel=1e-6)
            assert abs(averaged - trained) > 1e-5
