"""What a distillation costs at training: a plain step, the teacher's features, the method's formula, and all of it."""

import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any, Optional

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmrkd.adapters.generated import generated_batch
from mmrkd.adapters.structure import tensors_in
from mmrkd.engine.formula import formula_alone
from mmrkd.engine.memory import peak_memory
from mmrkd.engine.step_counts import StepCounts, count_step
from mmrkd.models import Distiller
from mmrkd.registry import MODELS

PARTS = ('plain student step', "teacher's features", "methods' formula alone", 'distillation step')
PLAIN, TEACHER, FORMULA, DISTILLATION = PARTS


@dataclass
class Timing:
    """Seconds of each repetition of one part, what it computes, and what it holds at most.

    Attributes:
        seconds: Of each repetition.
        memory: Bytes beyond what is there before it.
        flops: Floating point operations of convolutions and matrix products, forward and backward.
    """

    seconds: list[float] = field(default_factory=list)
    memory: int = 0
    flops: int = 0

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Lower quartile, median, upper quartile."""
        if len(self.seconds) == 1:
            return (self.seconds[0],) * 3
        return tuple(statistics.quantiles(self.seconds, n=4, method='inclusive'))


@dataclass
class Benchmark:
    """What was measured.

    Attributes:
        timings: Of each of :data:`PARTS`.
        counts: Passes, waits and operators of a distillation step.
        weights: Bytes of the weights of ``student``, ``teacher`` (all of them) and ``methods``.
        features: Bytes of one set of the teachers' features.
    """

    timings: dict[str, Timing]
    counts: StepCounts = field(default_factory=StepCounts)
    weights: dict[str, int] = field(default_factory=lambda: dict(student=0, teacher=0, methods=0))
    features: int = 0

    def ratio(self, measure: Callable[[Timing], float], *parts: str) -> Optional[float]:
        """Returns a distillation step over the sum of some parts, in a measure; ``None`` where nothing was measured."""
        below = sum(measure(self.timings[part]) for part in parts)
        return measure(self.timings[DISTILLATION]) / below if below else None

    @property
    def bound(self) -> int:
        """Bytes below which no distillation can be: a plain step, the teacher's weights and one set of its features."""
        return self.timings[PLAIN].memory + self.weights['student'] + self.weights['teacher'] + self.features

    @property
    def needed(self) -> int:
        """Bytes of a distillation step with both models' weights; those of the methods stand apart."""
        return self.timings[DISTILLATION].memory + self.weights['student'] + self.weights['teacher']

    def ratios(self) -> dict[str, Optional[float]]:
        """Returns R, R*, the same of floating point operations, and the memory over its bound."""
        limits = dict(R=(PLAIN, TEACHER), R_star=(PLAIN, TEACHER, FORMULA))
        found = {name: self.ratio(_median, *parts) for name, parts in limits.items()}
        found.update({f'{name}_flops': self.ratio(lambda t: t.flops, *parts) for name, parts in limits.items()})
        measured = self.timings[PLAIN].memory and self.timings[DISTILLATION].memory
        return {**found, 'memory': self.needed / self.bound if measured else None}

    def as_dict(self) -> dict[str, Any]:
        """Returns everything, for a file."""
        return dict(
            ratios=self.ratios(),
            parts={name: dict(asdict(t), quartiles=t.quartiles) for name, t in self.timings.items()},
            counts=asdict(self.counts),
            memory=dict(weights=self.weights, features=self.features, bound=self.bound, needed=self.needed),
        )

    def table(self) -> str:
        """Returns a Markdown table of the parts, and below it the ratios, the memory and what was counted."""
        rows = ['| part | median (ms) | quartiles (ms) | GFLOPs | memory (MB) |', '|---|---|---|---|---|']
        for name, timing in self.timings.items():
            low, middle, high = (1e3 * value for value in timing.quartiles)
            sizes = [f'{value:.0f}' if value else '-' for value in (timing.flops / 1e9, timing.memory / 1e6)]
            rows.append(f'| {name} | {middle:.1f} | {low:.1f} to {high:.1f} | {" | ".join(sizes)} |')
        return '\n'.join([*rows, '', *self._ratio_lines(), self._count_line()])

    def _ratio_lines(self) -> list[str]:
        shown = {name: '-' if value is None else f'{value:.3f}' for name, value in self.ratios().items()}
        parts = f'weights {", ".join(f"{k} {v / 1e6:.0f}" for k, v in self.weights.items())} MB'
        bound = f'{self.bound / 1e6:.0f} MB (plain step, both weights, one set of features)'
        return [
            f'R = distillation / (plain + teacher) = {shown["R"]}; in operations {shown["R_flops"]}',
            f'R* = distillation / (plain + teacher + formula) = {shown["R_star"]}; in operations '
            f'{shown["R_star_flops"]}',
            f'memory / bound = {shown["memory"]}; bound {bound}; {parts}',
        ]

    def _count_line(self) -> str:
        c = self.counts
        return (
            f'passes a step: student {c.student_bodies} body, {c.student_heads} head, teacher {c.teacher_bodies} body, '
            f'{c.teacher_heads} head; waits for the device: {c.own_waits} of mmrkd, {c.waits} in all'
        )


def _median(timing: Timing) -> float:
    return timing.quartiles[1]


def benchmark(cfg: Config, batch: dict, device: str, steps: int = 10, warmup: int = 2) -> Benchmark:
    """Times the parts, strictly in turn and in one process, so that a slow moment of the machine hits all alike.

    Args:
        cfg: A distillation config.
        batch: What a dataloader gives; every repetition sees the same one.
        device: ``'cpu'`` or ``'cuda'``.
        steps: Repetitions that count.
        warmup: Repetitions before them; after these, operations and memory are counted in one more.
    """
    distiller = build_distiller(cfg).to(device).train()
    plain = deepcopy(distiller.student).train()
    data = distiller.data_preprocessor(deepcopy(batch), True)
    functions = (
        _step(plain, cfg, batch),
        _teacher(distiller, data),
        formula_alone(distiller, data),
        _step(distiller, cfg, batch),
    )
    timings = {name: Timing() for name in PARTS}
    for repetition in range(warmup + steps):
        if repetition == warmup:
            for timing, function in zip(timings.values(), functions):
                timing.memory = peak_memory(function, device)
                timing.flops = _flops(function)
        for timing, function in zip(timings.values(), functions):
            seconds = _timed(function, device)
            timing.seconds += [seconds] if repetition >= warmup else []
    counts, _ = count_step(distiller, lambda: distiller(**data, mode='loss'))
    return Benchmark(timings, counts, _weights(distiller), _features(distiller, data))


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


def _teacher(distiller: Distiller, data: dict) -> Callable[[], Any]:
    """The teachers' bodies on the student's images."""

    def extract() -> list[Any]:
        pairs = [pair for pair in distiller.pairs.values() if pair.teacher is not None]
        return [pair.teacher.extract(pair.convert(data['inputs'], data['data_samples'])) for pair in pairs]

    return extract


def _weights(distiller: Distiller) -> dict[str, int]:
    teachers = [teacher.model for teacher in distiller.teachers.values()]
    return dict(student=_bytes([distiller.student]), teacher=_bytes(teachers), methods=_bytes([distiller.methods]))


def _bytes(models: list[nn.Module]) -> int:
    tensors = [tensor for model in models for tensor in (*model.parameters(), *model.buffers())]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _features(distiller: Distiller, data: dict) -> int:
    return sum(t.numel() * t.element_size() for feats in _teacher(distiller, data)() for t in tensors_in(feats))


def _flops(function: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        function()
    return int(counter.get_total_flops())


def _timed(function: Callable[[], Any], device: str) -> float:
    gpu = device.startswith('cuda')
    if gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start
