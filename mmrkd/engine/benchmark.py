"""What a distillation costs at training: a plain step, the teacher's features, a distillation step, timed in turn."""

import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from torch import nn

from mmrkd.adapters.generated import generated_batch
from mmrkd.models import Distiller
from mmrkd.registry import MODELS

PARTS = ('plain student step', "teacher's features", 'distillation step')


@dataclass
class Timing:
    """Seconds of each repetition of one part, and its peak memory in bytes (on a GPU; 0 on a CPU)."""

    seconds: list[float] = field(default_factory=list)
    memory: int = 0

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Lower quartile, median, upper quartile."""
        if len(self.seconds) == 1:
            return (self.seconds[0],) * 3
        return tuple(statistics.quantiles(self.seconds, n=4, method='inclusive'))


def benchmark(cfg: Config, batch: dict, device: str, steps: int = 10, warmup: int = 2) -> dict[str, Timing]:
    """Times the three parts, strictly in turn and in one process, so that a slow moment of the machine hits all alike.

    Args:
        cfg: A distillation config.
        batch: What a dataloader gives; every repetition sees the same one.
        device: ``'cpu'`` or ``'cuda'``.
        steps: Repetitions that count.
        warmup: Repetitions before them.

    Returns:
        Timing of each of :data:`PARTS`.
    """
    distiller = build_distiller(cfg).to(device).train()
    plain = deepcopy(distiller.student).train()
    functions = dict(zip(PARTS, (_step(plain, cfg, batch), _teacher(distiller, batch), _step(distiller, cfg, batch))))
    timings = {name: Timing() for name in PARTS}
    for repetition in range(warmup + steps):
        for name, function in functions.items():
            seconds, memory = _timed(function, device)
            if repetition >= warmup:
                timings[name].seconds.append(seconds)
                timings[name].memory = max(timings[name].memory, memory)
    return timings


def ratio(timings: dict[str, Timing]) -> float:
    """Returns R: the median distillation step over that of its parts, a plain step and the teacher's features."""
    plain, teacher, distillation = (timings[name].quartiles[1] for name in PARTS)
    return distillation / (plain + teacher)


def table(timings: dict[str, Timing]) -> str:
    """Returns a Markdown table of medians, quartiles and peak memory, and R below it."""
    rows = ['| part | median (ms) | quartiles (ms) | peak memory (MB) |', '|---|---|---|---|']
    for name, timing in timings.items():
        low, middle, high = (1e3 * value for value in timing.quartiles)
        memory = f'{timing.memory / 1e6:.0f}' if timing.memory else '-'
        rows.append(f'| {name} | {middle:.1f} | {low:.1f} to {high:.1f} | {memory} |')
    return '\n'.join([*rows, '', f'R = distillation / (plain + teacher) = {ratio(timings):.3f}'])


def build_distiller(cfg: Config) -> Distiller:
    """Builds the distiller of a config as a runner would, with its first weights."""
    model = deepcopy(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    distiller = MODELS.build(model)
    distiller.init_weights()
    return distiller


def real_batch(cfg: Config) -> dict:
    """Returns the first batch of the training data."""
    loader = dict(cfg.train_dataloader, num_workers=0, persistent_workers=False)
    return next(iter(Runner.build_dataloader(loader, seed=0)))


def random_batch(cfg: Config, size: tuple[int, int]) -> dict:
    """Returns a generated batch of the training's batch size."""
    return generated_batch(build_distiller(cfg).adapter, cfg.train_dataloader.get('batch_size', 1), size)


def _step(model: nn.Module, cfg: Config, batch: dict) -> Callable[[], Any]:
    wrapper = build_optim_wrapper(model, deepcopy(cfg.optim_wrapper))
    return lambda: model.train_step(deepcopy(batch), wrapper)


def _teacher(distiller: Distiller, batch: dict) -> Callable[[], Any]:
    """The teachers' bodies on the student's images."""

    def extract() -> None:
        data = distiller.data_preprocessor(deepcopy(batch), True)
        for pair in [pair for pair in distiller.pairs.values() if pair.teacher is not None]:
            pair.teacher.extract(pair.convert(data['inputs'], data['data_samples']))

    return extract


def _timed(function: Callable[[], Any], device: str) -> tuple[float, int]:
    gpu = device.startswith('cuda')
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    function()
    if gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start, torch.cuda.max_memory_allocated() if gpu else 0
