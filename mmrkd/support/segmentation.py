"""One trial of a stock segmentor with each method, and the page of what came out."""

import tempfile
from copy import deepcopy
from typing import Any

from mmengine.config import ConfigDict

from mmrkd.models import FrozenTeacher
from mmrkd.support.segmentors import NOT_SEGMENTORS, segmentor_names
from mmrkd.support.trial import (
    FEW_BRANCHES,
    WIDTHS,
    calibrate,
    describe,
    error_of,
    grouped,
    lighten,
    load_stock_config,
    predict_as_all_variants,
    run_plainly,
    size_of,
    train_two_iterations,
)
from mmrkd.testing import build_distiller, save_random_teacher

METHODS = {
    'FitNets': dict(type='mmrkd.FitNets'),
    'ERA': dict(type='mmrkd.ERA', w_kd=0, **FEW_BRANCHES),
    'KD': dict(type='mmrkd.KD'),
    'RDD': dict(type='mmrkd.RDD', min_kept=0.1, combination='or'),
    'OnlineEnsemble': dict(type='mmrkd.OnlineEnsemble', num_branches=2, kernels=(3,), squeeze=8, norm='GN'),
}
INTRODUCTION = """# Support matrix: segmentors

Which families of mmseg work as student and as teacher. Made by `python tools/support_matrix.py mmseg`; do not edit by
hand.

For each row the stock config is the teacher (random weights, loaded from a file) and a small variant of it the student
(on ResNet-18 where it stands on ResNet-50 or 101, else the same config). With each method two training iterations and
one prediction as each variant run on the CPU with generated images and labels; all losses are finite, the student's
backbone gets a gradient, and the teacher's weights and buffers hash to what they were. Only the images are smaller than
those of the stock config; no pretrained weights are downloaded.

*Features* are strides and channels of what the teacher's heads read. `FitNets` stands for every method that needs
features alone, `ERA` has two small branches and TWI, `KD` stands for every method on logits. `n/a`: refused while it is
built, and the remark says why.
"""


def try_segmentor(name: str) -> dict[str, Any]:
    """Tries one stock config of mmseg with each method on generated data, on the CPU.

    Args:
        name: ``'mmseg::folder/config.py'``.

    Returns:
        ``features`` (what was matched, as text), and for each method ``[status, remark]`` with the status ``works``,
        ``n/a`` (refused while building; the remark is the reason) or ``fails`` (with the error).
    """
    stock = lighten(load_stock_config(name))
    result: dict[str, Any] = {'features': ''}
    try:
        with tempfile.TemporaryDirectory() as folder:
            teacher = FrozenTeacher(**save_random_teacher(stock, folder))
        teacher.adapter.dry_run()
        calibrate(teacher.adapter, teacher.adapter.dry_size)
        student = small_segmentor(stock)
        methods = {method: _try(student, teacher, cfg, result) for method, cfg in METHODS.items()}
        failed = any(status == 'fails' for status, _ in methods.values())
        error = error_of(run_plainly, student, 'loss') if failed else None
    except Exception as raised:  # noqa: BLE001 - the matrix reports whatever happens
        error = raised
    if error is not None:
        methods = {method: ['n/a', f'fails without distillation too: {describe(error)}'] for method in METHODS}
    return {**result, 'methods': methods}


def small_segmentor(cfg: ConfigDict) -> ConfigDict:
    """Returns a segmentor on a ResNet-18 where it stands on a plain ResNet-50 or 101, else the model itself."""
    cfg = deepcopy(cfg)
    if cfg.backbone.get('type') not in ('ResNet', 'ResNetV1c') or cfg.backbone.get('depth') not in (50, 101):
        return cfg
    necks = _listed(cfg.get('neck'))
    if any(neck.type != 'FPN' for neck in necks):
        return cfg  # heads may read both what it gives and what it was given
    cfg.backbone.depth = 18
    heads = [head for name in ('decode_head', 'auxiliary_head') for head in _listed(cfg.get(name))]
    for node in necks or [*heads, *(head.get('kernel_generate_head', {}) for head in heads)]:
        widths = node.get('in_channels')
        if isinstance(widths, (list, tuple)) and set(widths) <= set(WIDTHS):
            node['in_channels'] = [width // 4 for width in widths]
        elif widths in WIDTHS:
            node['in_channels'] = widths // 4
    return cfg


def _listed(part: Any) -> list:
    return [] if part is None else list(part) if isinstance(part, (list, tuple)) else [part]


def _try(student: ConfigDict, teacher: FrozenTeacher, method: dict, result: dict[str, Any]) -> list[str]:
    try:
        distiller = build_distiller(student, teacher, [method])
    except ValueError as error:
        return ['n/a', describe(error)]
    except Exception as error:  # noqa: BLE001
        return ['fails', describe(error)]
    result['features'] = '; '.join(grouped(distiller.match.teacher_levels))
    try:
        calibrate(distiller.adapter, size_of(distiller))
        train_two_iterations(distiller)
        predict_as_all_variants(distiller)
    except Exception as error:  # noqa: BLE001
        return ['fails', describe(error)]
    return ['works', '']


def render_segmentors(results: dict[str, dict[str, Any]]) -> str:
    """Returns the page.

    Args:
        results: ``'mmseg::folder/config.py'`` -> what :func:`try_segmentor` returned.
    """
    found = {m: sum(row['methods'][m][0] == 'works' for row in results.values()) for m in METHODS}
    summary = ', '.join(f'{method} with {count}' for method, count in found.items())
    parts = [INTRODUCTION, f'{len(results)} configs. It works: {summary}.\n', _table(results)]
    untried = [name for name in segmentor_names() if name not in results]
    if untried:
        parts.append('## Not tried yet\n\n' + '\n'.join(f'- `{name}`' for name in untried) + '\n')
    parts.append('## Folders of mmseg without a row\n')
    parts.append('\n'.join(f'- `{folder}`: {why}.' for folder, why in sorted(NOT_SEGMENTORS.items())) + '\n')
    return '\n'.join(parts)


def _table(results: dict[str, dict[str, Any]]) -> str:
    lines = [f'| Family | Config | Features | {" | ".join(METHODS)} | Remark |', '| --- ' * (len(METHODS) + 4) + '|']
    for name, row in sorted(results.items()):
        folder, config = name.split('::')[1].split('/', 1)
        by_remark: dict[str, list[str]] = {}
        for method, (_, remark) in row['methods'].items():
            by_remark.setdefault(remark, []).append(method)
        remarks = [f'{", ".join(methods)}: {remark}' for remark, methods in by_remark.items() if remark]
        cells = [status for status, _ in row['methods'].values()]
        remark = '; '.join(remarks).replace('|', '\\|')
        lines.append(f'| {folder} | {config} | {row["features"]} | {" | ".join(cells)} | {remark} |')
    return '\n'.join(lines) + '\n'
