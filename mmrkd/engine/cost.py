"""What each variant costs at inference, counted on the real modules and timed on real images."""

import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from torch import nn

from mmrkd.adapters import build_adapter
from mmrkd.engine.metrics import main_metric
from mmrkd.models import Distiller


@dataclass
class Cost:
    """Parameters, floating point operations for one image (multiply-adds, as mmengine counts) and seconds an image."""

    params: int
    flops: int
    latency: float


def measure_cost(model: nn.Module, batch: dict, repeats: int = 5) -> Cost:
    """Measures one model on the first image of a batch.

    Args:
        model: A detector or classifier.
        batch: What a dataloader gives.
        repeats: Timed predictions; the fastest counts, after one that warms up.
    """
    model.eval()
    one = {key: value[:1] for key, value in batch.items()}
    data = model.data_preprocessor(deepcopy(one), False)
    with torch.no_grad():
        forward = model.forward
        model.forward = partial(forward, data_samples=data['data_samples'], mode='tensor')
        try:
            counter = FlopAnalyzer(model, (data['inputs'],))
            flops = counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()
        finally:
            del model.forward
        seconds: list[float] = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            model(**data, mode='predict')
            if data['inputs'].is_cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    return Cost(sum(p.numel() for p in model.parameters()), int(flops), min(seconds[1:]))


def cost_table(cfg: Config, model: nn.Module, dataloader, variants: Sequence[str], metrics: dict[str, float]) -> str:
    """Returns a Markdown table: for each variant its main metric, parameters, FLOPs and latency.

    Args:
        cfg: Config of the run, which may name the metric that sums it up.
        model: A plain model or a distiller; a parallel wrapper around it does not matter.
        dataloader: Its first batch is what is timed.
        variants: Of the distiller; a plain model has only itself, ``student``.
        metrics: What the evaluation gave.
    """
    model = model.module if is_model_wrapper(model) else model
    batch = next(iter(dataloader))
    metric = main_metric(cfg, model.adapter if isinstance(model, Distiller) else build_adapter(model))
    rows = ['| variant | metric | params (M) | FLOPs (G) | latency (ms) |', '|---|---|---|---|---|']
    for name in variants:
        reported = metric if name == 'student' else f'{name}/{metric}'
        score = f'{metrics[reported]:.4g}' if reported in metrics else '-'
        variant = model.variants[name] if isinstance(model, Distiller) else None
        if variant is not None and variant.parts:  # several models side by side: it costs what they cost
            rows.append(f'| {name} | {score} | {" + ".join(variant.parts)} | | |')
            continue
        try:
            single = model if variant is None else variant.build()
        except ValueError as error:  # it is no plain model
            print_log(f'the cost of {name} cannot be measured: {error}', 'current')
            rows.append(f'| {name} | {score} | - | - | - |')
            continue
        cost = measure_cost(single.to(next(model.parameters()).device), batch)
        rows.append(
            f'| {name} | {score} | {cost.params / 1e6:.3f} | {cost.flops / 1e9:.3f} | {cost.latency * 1e3:.1f} |'
        )
    return '\n'.join(rows)
