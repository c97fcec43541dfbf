"""Why a distillation did not help, at the end of its training."""

import math
import os
import os.path as osp
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Optional

from mmengine.dist import is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.runner.base_loop import BaseLoop
from torch.distributed.fsdp import FullyShardedDataParallel

from mmrkd.checkpoint import FACTS
from mmrkd.diagnosis import FACTS_FILE, Facts, describe
from mmrkd.engine.hooks.checkpoint_hooks import distiller_of
from mmrkd.engine.isolation import quiet, untouched_randomness
from mmrkd.engine.measurement import isolated_copy, measure_metrics, measure_step
from mmrkd.engine.metrics import found_metric
from mmrkd.registry import HOOKS

GRADIENTS, METRICS = 'gradients', 'metrics of student and teacher'
SPARSE = 20
"""At most one iteration of so many is measured, so that a short training does not become a longer one."""


@HOOKS.register_module()
class DiagnosisHook(Hook):
    """Gathers facts about a distillation while it is trained and says in the end why it may not have helped.

    Every distillation that :func:`mmrkd.engine.prepare_config` or :class:`mmrkd.Runner` prepares has it;
    ``diagnosis = False`` in the config leaves it out, ``diagnosis = dict(images=500)`` gives it arguments. In the work
    dir it leaves ``facts.json`` (the arguments of :class:`mmrkd.diagnosis.Facts`) and ``diagnosis.md``.

    What it costs, whatever the length of the training:

    - ``samples`` times a forward pass and one backward pass for each method and the task, on a copy of student and
      methods (their memory once more), and never in more than one of twenty iterations;
    - in the end four evaluations on ``images`` images: student and teacher, on validation and training images. Each
      further teacher adds one.

    All of it happens on copies of model and batch and leaves the random states as they were: the training is the same
    with and without it, bit for bit. Nothing that fails here ends it; what could not be measured is said. What was
    gathered rides in the checkpoints (``checkpoint['mmrkd_facts']``), so a resumed run knows it. With several processes
    the shares are those of the first one's batches. Sharded weights (FSDP) cannot be copied: only curve and learning
    rate are known then.

    Args:
        samples: How many iterations are measured, evenly spread. Defaults to 8.
        images: Images of each evaluation; ``None`` for 256 if they are to be classified, else 64.
    """

    priority = 'LOWEST'  # after those that set phases, schedules and weights of this iteration

    def __init__(self, samples: int = 8, images: Optional[int] = None) -> None:
        if samples < 0 or (images is not None and images < 1):
            raise ValueError(f'expected samples >= 0 and images >= 1 or None, found {samples} and {images}')
        self.samples, self.images, self.facts = samples, images, Facts()
        self.sampled: frozenset[int] = frozenset()

    def before_train(self, runner: Runner) -> None:
        """Chooses the iterations that are measured: they depend on nothing but the length of the training."""
        length = runner.train_loop.max_iters
        count = min(self.samples, max(1, length // SPARSE))
        if any(isinstance(module, FullyShardedDataParallel) for module in runner.model.modules()):
            count = 0
            self.facts.unmeasured = {GRADIENTS: 'the weights are sharded', METRICS: 'the weights are sharded'}
        self.sampled = frozenset(int((index + 0.5) * length / count) for index in range(count))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Notes the learning rate and, in some iterations, measures the step that is to come."""
        groups = runner.optim_wrapper.param_groups
        groups = [group for part in groups.values() for group in part] if isinstance(groups, dict) else groups
        rate = max((float(group['lr']) for group in groups), default=0.0)
        self.facts.final_rate, self.facts.peak_rate = rate, max(rate, self.facts.peak_rate or 0.0)
        if runner.iter in self.sampled:
            with self._measuring(GRADIENTS):
                wrapper = runner.optim_wrapper
                scale = wrapper.loss_scaler.get_scale() if hasattr(wrapper, 'loss_scaler') else 1.0
                model = distiller_of(runner)
                shares, numbers = measure_step(model, data_batch, wrapper.optim_context, scale)
                for method, share in shares.items():
                    self.facts.gradient_shares.setdefault(method, []).append(share)
                for method, found in numbers.items():
                    if 'residual_explained' in found:
                        self.facts.residual_explained.setdefault(method, []).append(found['residual_explained'])

    def after_val_epoch(self, runner: Runner, metrics: Optional[dict[str, float]] = None) -> None:
        """Notes the metric of the student."""
        loop = runner._train_loop  # the property would build it where there is nothing but a validation
        if not metrics or not isinstance(loop, BaseLoop):
            return
        with self._measuring('curve'):
            adapter = distiller_of(runner).adapter
            name = found_metric(runner.cfg, adapter, metrics)
            value = float(metrics[name]) * adapter.metric_scale
            if _less_is_better(runner.cfg, name):
                self.facts.unmeasured[METRICS] = f'less of {name} is better'
            elif math.isfinite(value):
                step = runner.epoch if isinstance(loop, EpochBasedTrainLoop) else runner.iter
                self.facts.metric = name
                self.facts.curve = [*(point for point in self.facts.curve if point[0] < step), [step, value]]

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Lets what was gathered ride in the checkpoint."""
        checkpoint[FACTS] = asdict(self.facts)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Takes up what a run that is resumed had gathered."""
        if runner._resume and FACTS in checkpoint:
            with self._measuring('what the run knew before it was resumed'):  # another version may know other facts
                self.facts = Facts(**checkpoint[FACTS])

    def after_train(self, runner: Runner) -> None:
        """Evaluates student and teacher on a few images, logs the diagnosis and writes it down."""
        if runner.val_loop is None or not runner.cfg.get('val_evaluator'):
            self.facts.unmeasured[METRICS] = 'the config has no validation'
        if METRICS not in self.facts.unmeasured:
            with self._measuring(METRICS):
                datasets = dict(train=runner.train_dataloader.dataset, val=runner.val_dataloader.dataset)
                measure_metrics(_final(runner), datasets, runner.cfg, self.facts, self.images)
        text = describe(self.facts)
        print_log(f'{text}\n\n(diagnosis = False in the config leaves this out)', 'current')
        if is_main_process():
            _write(runner.work_dir, {FACTS_FILE: self.facts.to_json(), 'diagnosis.md': text})

    @contextmanager
    def _measuring(self, what: str) -> Iterator[None]:
        """Leaves no trace, and lets the training go on if something fails: it is no part of it."""
        try:
            with untouched_randomness(), quiet():
                yield
        except Exception as error:  # models and metrics raise whatever they like
            if os.environ.get('MMRKD_DEBUG'):
                traceback.print_exc(file=sys.stderr)
            self.facts.unmeasured[what] = f'{type(error).__name__}: {error}'.splitlines()[0][:300]


def _write(folder: str, files: dict[str, str]) -> None:
    try:
        for name, content in files.items():
            with open(osp.join(folder, name), 'w') as file:
                file.write(content + '\n')
    except OSError as error:  # the training is over, and its checkpoints are there
        print_log(f'the diagnosis could not be written: {error}', 'current')


def _less_is_better(cfg: Any, metric: str) -> bool:
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    return checkpoint.get('rule') == 'less' or 'loss' in metric.lower()


def _final(runner: Runner) -> Any:
    """Returns a copy of what the run leaves: averaged weights, if that is what it validates."""
    model = distiller_of(runner)
    for hook in runner.hooks:
        if isinstance(hook, EMAHook) and getattr(hook, 'evaluate_on_ema', True):
            device = next(model.parameters()).device
            return isolated_copy(hook.ema_model.module).to(device)
    return isolated_copy(model)
