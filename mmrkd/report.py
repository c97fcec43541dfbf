"""The end of a comparison: a table, pictures and a page from the work dirs of several runs."""

import difflib
import json
import os.path as osp
from collections.abc import Sequence
from typing import Optional

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmrkd.adapters import build_adapter
from mmrkd.checkpoint import load_checkpoint_file
from mmrkd.diagnosis import FACTS_FILE, Facts, diagnose, measured
from mmrkd.engine.cost import Cost, measure_cost
from mmrkd.engine.metrics import main_metric
from mmrkd.engine.prepare import is_distillation
from mmrkd.export import load_distiller
from mmrkd.plain_config import plain_config
from mmrkd.registry import MODELS
from mmrkd.report_page import RunSection, newest_pictures, write_page
from mmrkd.version import __version__
from mmrkd.visualization import compare_detections, plot_curves, read_curve, read_losses


def report(runs: dict[str, tuple[str, str]], out: str, num_images: int = 4) -> str:
    """Writes ``report.html``, ``table.md``, ``curves.png`` and, of detectors, ``detections.png``; returns the table.

    Behind the table stands, for each run that left its facts, why distillation may not have helped
    (:mod:`mmrkd.diagnosis`). The page has all of it, and beside it the losses, the pictures that the run drew, what its
    config adds to the plain one, and the environment.

    Args:
        runs: Name -> config file and work dir of a finished run. Of a distillation, the student and, where its
            validation had it, the integrated form become rows of their own. All are judged by one metric, see
            :func:`mmrkd.engine.metrics.main_metric`.
        out: Folder to write to.
        num_images: Images in the picture of detections.

    Raises:
        ValueError: The runs are judged by different metrics.
    """
    rows, curves, models, distilled, metrics, sections = [], {}, {}, [], {}, []
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
            models[title] = model
            distilled += [title] * is_distillation(cfg)
        sections.append(_section(name, cfg, work_dir, osp.join(out, f'losses_{len(sections)}.png')))
    header = _header(metrics)
    table = '\n'.join([markdown(header, rows), *_diagnoses(sections)])
    with open(osp.join(out, 'table.md'), 'w') as file:
        file.write(table + '\n')
    pictures = {'validation': osp.join(out, 'curves.png')}
    plot_curves(curves, pictures['validation'], f'{metric} (val)')
    if adapter.task == 'detection':
        pictures['what each model finds'] = osp.join(out, 'detections.png')
        alone = baseline(models, distilled)
        order = sorted(models, key=lambda title: (title != alone, title not in distilled))  # the teacher comes last
        shown = {title: models[title] for title in order}
        compare_detections(shown, loader.dataset, range(num_images), pictures['what each model finds'], reference=alone)
    facts = {'mmrkd': __version__, 'torch': torch.__version__}
    write_page(osp.join(out, 'report.html'), ', '.join(runs), header, rows, pictures, sections, facts)
    return table


def baseline(models: dict[str, torch.nn.Module], distilled: Sequence[str]) -> Optional[str]:
    """Returns which of the models that were not distilled is built as one that was: the student alone.

    Args:
        models: Title -> model.
        distilled: Titles of those that come from a distillation.

    Returns:
        Its title; ``None`` if there is none, or nothing to compare it with.
    """
    shapes = {title: {k: v.shape for k, v in model.state_dict().items()} for title, model in models.items()}
    alone = (title for title in models if title not in distilled)
    return next((title for title in alone if any(shapes[title] == shapes[other] for other in distilled)), None)


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Returns a table."""
    first, *others = (f'| {" | ".join(cells)} |' for cells in [header, *rows])
    return '\n'.join([first, '|' + '---|' * len(header), *others])


def _section(name: str, cfg: Config, work_dir: str, drawing: str) -> RunSection:
    section = RunSection(name, pictures=newest_pictures(work_dir))
    losses = read_losses(work_dir)
    if losses:
        plot_curves(losses, drawing, 'loss, weighted', 'iteration')
        section.pictures = {'losses': drawing, **section.pictures}
    facts = _facts(work_dir)
    if facts is not None:
        section.findings, section.measured = diagnose(facts), dict(line.split(': ', 1) for line in measured(facts))
    if is_distillation(cfg):
        section.difference = difference(plain_config(cfg), cfg)
    return section


def _facts(work_dir: str) -> Optional[Facts]:
    """What a run measured is judged anew, so that an old one profits from what has been learnt since."""
    path = osp.join(work_dir, FACTS_FILE)
    if not osp.isfile(path):
        return None
    with open(path) as file:
        return Facts(**json.load(file))


def difference(plain: Config, distillation: Config) -> str:
    """Returns what a distillation adds to and takes from the student's plain config, line by line."""
    plain, other = plain.to_dict(), distillation.to_dict()
    plain.pop('model', None)
    other['model'].pop('student')
    texts = [json.dumps(cfg, indent=1, sort_keys=True, default=str).splitlines() for cfg in (plain, other)]
    lines = difflib.unified_diff(*texts, lineterm='', n=0)
    return '\n'.join(line for line in lines if line[:1] in '+-' and line[:3] not in ('+++', '---'))


def _diagnoses(sections: list[RunSection]) -> list[str]:
    lines = []
    for section in sections:
        if section.findings is not None:
            none = '' if section.findings else ' none of the causes that are looked for was found.'
            lines += [f'\nDiagnosis of {section.name}:{none}', *(f'- {finding}' for finding in section.findings)]
    return lines


def _header(metrics: dict[str, str]) -> list[str]:
    if len(set(metrics.values())) > 1:
        raise ValueError(
            f'runs that are compared are judged by one metric, found {metrics}: set save_best of their configs alike'
        )
    name = next(iter(metrics.values()), '')
    return ['model', f'{name}, last epoch', f'{name}, best epoch', 'params (M)', 'FLOPs (G)', 'ms/image']


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


def _row(title: str, curve: list, cost: Cost, scale: float) -> list[str]:
    scores = [curve[-1][1] * scale, max(value for _, value in curve) * scale]
    costs = [f'{cost.params / 1e6:.3f}', f'{cost.flops / 1e9:.3f}', f'{cost.latency * 1e3:.1f}']
    return [title, *(f'{score:.1f}' for score in scores), *costs]
