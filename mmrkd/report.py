"""The end of a comparison: one table and two pictures from the work dirs of several runs."""

import json
import os.path as osp
from collections.abc import Iterator

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmrkd.adapters import build_adapter
from mmrkd.checkpoint import load_checkpoint_file
from mmrkd.diagnosis import FACTS_FILE, Facts, diagnose
from mmrkd.engine.cost import Cost, measure_cost
from mmrkd.engine.metrics import main_metric
from mmrkd.engine.prepare import is_distillation
from mmrkd.export import load_distiller
from mmrkd.registry import MODELS
from mmrkd.visualization import compare_detections, plot_curves, read_curve


def report(runs: dict[str, tuple[str, str]], out: str, num_images: int = 4) -> str:
    """Writes ``table.md``, ``curves.png`` and, of detectors, ``detections.png``, and returns the table.

    Behind the table stands, for each run that left its facts, why distillation may not have helped
    (:mod:`mmrkd.diagnosis`).

    Args:
        runs: Name -> config file and work dir of a finished run. Of a distillation, the student and, where its
            validation had it, the integrated form become rows of their own. All are judged by one metric, see
            :func:`mmrkd.engine.metrics.main_metric`.
        out: Folder to write to.
        num_images: Images in the picture of detections.

    Raises:
        ValueError: The runs are judged by different metrics.
    """
    rows, curves, students, metrics = [], {}, {}, {}
    for name, (config, work_dir) in runs.items():
        cfg = Config.fromfile(config)
        init_default_scope(cfg.get('default_scope', 'mmdet'))
        loader = Runner.build_dataloader(dict(cfg.val_dataloader, num_workers=0, persistent_workers=False))
        batch = next(iter(loader))
        for variant, model in _trained(cfg, work_dir).items():
            title = name if variant == 'student' else f'{name}, {variant}'
            adapter = build_adapter(model)
            metric = metrics[title] = main_metric(cfg, adapter)
            curves[title] = read_curve(work_dir, metric if variant == 'student' else f'{variant}/{metric}')
            rows.append(_row(title, curves[title], measure_cost(model, batch), adapter.metric_scale))
            if variant == 'student':
                students[title] = model
    table = '\n'.join([*_header(metrics), *rows, *_diagnoses(runs)])
    with open(osp.join(out, 'table.md'), 'w') as file:
        file.write(table + '\n')
    plot_curves(curves, osp.join(out, 'curves.png'), f'{metric} (val)')
    if adapter.task == 'detection':
        compare_detections(students, loader.dataset, range(num_images), osp.join(out, 'detections.png'))
    return table


def _diagnoses(runs: dict[str, tuple[str, str]]) -> Iterator[str]:
    """Judges anew what each run measured, so that an old run profits from what has been learnt since."""
    for name, (_, work_dir) in runs.items():
        path = osp.join(work_dir, FACTS_FILE)
        if osp.isfile(path):
            with open(path) as file:
                findings = diagnose(Facts(**json.load(file)))
            yield f'\nDiagnosis of {name}:{"" if findings else " none of the causes that are looked for was found."}'
            yield from (f'- {finding}' for finding in findings)


def _header(metrics: dict[str, str]) -> tuple[str, str]:
    if len(set(metrics.values())) > 1:
        raise ValueError(
            f'runs that are compared are judged by one metric, found {metrics}: set save_best of their configs alike'
        )
    name = next(iter(metrics.values()), '')
    header = f'| model | {name}, last epoch | {name}, best epoch | params (M) | FLOPs (G) | ms/image |'
    return header, '|---|---|---|---|---|---|'


def _trained(cfg: Config, work_dir: str) -> dict[str, torch.nn.Module]:
    """Loads the last checkpoint of a run: each of its evaluated variants as one model."""
    with open(osp.join(work_dir, 'last_checkpoint')) as file:
        ckpt = file.read().strip()
    if is_distillation(cfg):
        distiller = load_distiller(cfg, ckpt)
        variants = cfg.val_cfg.get('variants', ('student',))
        return {v: distiller.variants[v].build().eval() for v in variants}
    model = MODELS.build(cfg.model)
    model.load_state_dict(load_checkpoint_file(ckpt)['state_dict'])
    return {'student': model.eval()}


def _row(title: str, curve: list, cost: Cost, scale: float) -> str:
    best = max(value for _, value in curve)
    return (
        f'| {title} | {curve[-1][1] * scale:.1f} | {best * scale:.1f} | {cost.params / 1e6:.3f} '
        f'| {cost.flops / 1e9:.3f} | {cost.latency * 1e3:.1f} |'
    )
