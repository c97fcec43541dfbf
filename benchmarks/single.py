"""One run from its config to its line: trains or goes on, tests, measures what each variant costs.

Example:
  python -m benchmarks.single CONFIG --work-dir DIR

Writes ``result.json`` into the work dir.
"""

import argparse
import glob
import json
import os
import os.path as osp
import resource
import statistics
import time
from dataclasses import asdict
from typing import Any

import torch
from mmengine.config import Config

from mmrkd.engine.cost import measure_cost
from mmrkd.engine.launch import build_runner
from mmrkd.engine.prepare import is_distillation
from mmrkd.models import Distiller


def main() -> None:
    """Trains, tests, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('--work-dir', required=True)
    args = parser.parse_args()
    result = dict(threads=torch.get_num_threads(), **train(args.config, args.work_dir))
    result.update(test(args.config, args.work_dir))
    path = osp.join(args.work_dir, 'result.json')
    with open(f'{path}.part', 'w') as file:
        json.dump(result, file, indent=1)
    os.replace(f'{path}.part', path)


def train(config: str, work_dir: str) -> dict[str, Any]:
    """Trains, or goes on, and returns time and memory."""
    cfg = Config.fromfile(config)
    cfg.work_dir, cfg.load_from = work_dir, None
    cfg.resume = osp.exists(osp.join(work_dir, 'last_checkpoint'))
    runner, start = build_runner(cfg), time.perf_counter()
    runner.train()
    own, loaders = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    spent = own.ru_utime + own.ru_stime + loaders.ru_utime + loaders.ru_stime
    whole = not cfg.resume  # of a run that went on, only its last part was seen
    return dict(
        seconds=round(time.perf_counter() - start, 1) if whole else None,
        processor_seconds=round(spent, 1) if whole else None,
        seconds_a_step=seconds_a_step(work_dir),
        peak_memory_mb=round(_peak_memory(own) / 1e6),
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu',
    )


def test(config: str, work_dir: str) -> dict[str, Any]:
    """Tests the last checkpoint and returns metrics and costs of each variant."""
    cfg = Config.fromfile(config)
    cfg.work_dir, cfg.check = osp.join(work_dir, 'test'), False
    with open(osp.join(work_dir, 'last_checkpoint')) as file:
        cfg.load_from = file.read().strip()
    runner = build_runner(cfg)
    metrics = {name: float(value) for name, value in runner.test().items()}
    batch, costs = next(iter(runner.test_dataloader)), {}
    variants = cfg.test_cfg.get('variants', ['student']) if is_distillation(cfg) else ['student']
    for name in variants:
        model = runner.model.variants[name].build() if isinstance(runner.model, Distiller) else runner.model
        costs[name] = asdict(measure_cost(model.to(next(runner.model.parameters()).device), batch))
    return dict(test=metrics, cost=costs)


def seconds_a_step(work_dir: str) -> float:
    """Returns the median over the log of a training."""
    times = []
    for path in glob.glob(osp.join(work_dir, '*', 'vis_data', 'scalars.json')):
        with open(path) as lines:
            times += [record['time'] for record in map(json.loads, lines) if 'loss' in record]
    return round(statistics.median(times), 4)


def _peak_memory(own: resource.struct_rusage) -> int:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else own.ru_maxrss * 1024


if __name__ == '__main__':
    main()
