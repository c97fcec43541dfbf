"""The end of a comparison: one table and two pictures from the work dirs of several runs."""

import os.path as osp

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmrkd.checkpoint import load_checkpoint_file
from mmrkd.engine.cost import measure_cost
from mmrkd.engine.prepare import is_distillation
from mmrkd.export import load_distiller
from mmrkd.registry import MODELS
from mmrkd.visualization import compare_detections, plot_curves, read_curve

AP = 'coco/bbox_mAP'


def report(runs: dict[str, tuple[str, str]], out: str, num_images: int = 4) -> str:
    """Writes ``table.md``, ``curves.png`` and ``detections.png`` and returns the table.

    Args:
        runs: Name -> config file and work dir of a finished run. Of a distillation, the student and, where its
            validation had it, the integrated form become rows of their own.
        out: Folder to write to.
        num_images: Images in the picture of detections.
    """
    rows, curves, students = [], {}, {}
    for name, (config, work_dir) in runs.items():
        cfg = Config.fromfile(config)
        init_default_scope(cfg.get('default_scope', 'mmdet'))
        loader = Runner.build_dataloader(dict(cfg.val_dataloader, num_workers=0, persistent_workers=False))
        batch = next(iter(loader))
        for variant, model in _trained(cfg, work_dir).items():
            title = name if variant == 'student' else f'{name}, {variant}'
            curves[title] = read_curve(work_dir, AP if variant == 'student' else f'{variant}/{AP}')
            rows.append(_row(title, curves[title], measure_cost(model, batch)))
            if variant == 'student':
                students[title] = model
    table = '\n'.join(
        [
            '| model | AP, last epoch | AP, best epoch | params (M) | FLOPs (G) | ms/image |',
            '|---|---|---|---|---|---|',
            *rows,
        ]
    )
    with open(osp.join(out, 'table.md'), 'w') as file:
        file.write(table + '\n')
    plot_curves(curves, osp.join(out, 'curves.png'))
    compare_detections(students, loader.dataset, range(num_images), osp.join(out, 'detections.png'))
    return table


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


def _row(title: str, curve: list, cost) -> str:
    best = max(value for _, value in curve)
    return (
        f'| {title} | {curve[-1][1] * 100:.1f} | {best * 100:.1f} | {cost.params / 1e6:.3f} '
        f'| {cost.flops / 1e9:.3f} | {cost.latency * 1e3:.1f} |'
    )
