"""One trial: a stock config as teacher, a small variant of it as student, two iterations and a prediction."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub

from mmrkd.models import Distiller, FrozenTeacher
from mmrkd.models.teacher import load_model_config
from mmrkd.testing import annotated_batch, build_distiller, classification_batch, model_inputs, save_random_teacher

WIDTHS = (256, 512, 1024, 2048)  # of the stages of ResNet-50; a quarter of them are those of ResNet-18
METHODS = {
    'ERA': dict(type='mmrkd.ERA', w_kd=1.0),
    'ERA without TWI': dict(type='mmrkd.ERA', w_kd=0, twi_on='none'),
    'FitNets': dict(type='mmrkd.FitNets'),
}


def try_config(name: str) -> dict[str, Any]:
    """Tries one stock config with each method on generated data, on the CPU.

    Args:
        name: ``'mmdet::...'`` or ``'mmpretrain::...'``.

    Returns:
        ``features`` (what was matched, as text), ``multi_level``, and for each method ``[status, remark]`` with the
        status ``works``, ``n/a`` (refused while building; the remark is the reason) or ``fails`` (with the error).
    """
    stock = lighten(load_model_config(name))
    with tempfile.TemporaryDirectory() as folder:
        try:
            teacher = FrozenTeacher(**save_random_teacher(stock, folder))
        except Exception as error:  # noqa: BLE001 - the matrix reports whatever happens
            return {'features': '', 'multi_level': False, 'methods': {m: ['fails', describe(error)] for m in METHODS}}
    student = small_variant(stock)
    result: dict[str, Any] = {'features': '', 'multi_level': False}
    both = _try(student, teacher, ('ERA', 'FitNets'), result)
    if both[0] == 'works':
        return {**result, 'methods': {'ERA': both, 'FitNets': ['works', '']}}
    methods = {name: _try(student, teacher, (name,), result) for name in ('ERA', 'FitNets')}
    if methods['ERA'][0] != 'works':
        methods['ERA without TWI'] = _try(student, teacher, ('ERA without TWI',), result)
    return {**result, 'methods': methods}


def lighten(cfg: ConfigDict) -> ConfigDict:
    """Removes what needs a download, a GPU or a long time on the CPU; nothing that makes the family.

    No pretrained weights, no synchronised norm, small paddings and batch resizes, few proposals and queries.
    """
    cfg = deepcopy(cfg)
    for node in _dicts_in(cfg):
        if isinstance(node.get('init_cfg'), dict) and node['init_cfg'].get('type') == 'Pretrained':
            node['init_cfg'] = None
        for key, value in _LIGHTER.get(node.get('type'), {}).items():
            node[key] = value
        for key, most in dict(nms_pre=200, num_queries=100, num_proposals=50).items():
            if isinstance(node.get(key), int):
                node[key] = min(node[key], most)
        if 'nms_pre' in node and 'max_per_img' in node:
            node['max_per_img'] = min(node['max_per_img'], 50)
        if 'teacher_ckpt' in node:
            node['teacher_ckpt'] = None
    return cfg


_LIGHTER = {
    'SyncBN': dict(type='BN'),
    'MMSyncBN': dict(type='BN'),
    'RandomSampler': dict(num=64),
    'BatchFixedSizePad': dict(size=(128, 128)),
    'BatchSyncRandomResize': dict(random_size_range=(128, 192), interval=1),
}


def small_variant(cfg: ConfigDict) -> ConfigDict:
    """Returns the model on a ResNet-18 where it stands on a plain ResNet-50 or 101, else the model itself."""
    cfg = deepcopy(cfg)
    if cfg.get('backbone', {}).get('type') != 'ResNet' or cfg.backbone.get('depth') not in (50, 101):
        return cfg
    if any(key in cfg.backbone for key in ('plugins', 'dcn')) or cfg.get('roi_head', {}).get('shared_head'):
        return cfg
    if cfg.backbone.get('num_stages', 4) < 4 or 'strides' in cfg.backbone:
        return cfg
    cfg.backbone.depth = 18
    necks = cfg.get('neck') or []
    for node in [*(necks if isinstance(necks, list) else [necks]), cfg.get('panoptic_head', {})]:
        widths = node.get('in_channels')
        if isinstance(widths, (list, tuple)) and set(widths) <= set(WIDTHS):
            node['in_channels'] = [width // 4 for width in widths]
        elif widths in WIDTHS[2:]:
            node['in_channels'] = widths // 4
    return cfg


def generated_batch(distiller: Distiller, seed: int) -> dict:
    """Random images with all the ground truth that the student's kind of model can ask for."""
    size = max(distiller.adapter.dry_size, distiller.teacher.adapter.dry_size)
    if hasattr(distiller.student, 'head'):
        mean = getattr(distiller.data_preprocessor, 'mean', None)
        classes = distiller.adapter.num_classes
        return classification_batch(2, size, classes, seed, channels=3 if mean is None else len(mean))
    batch = annotated_batch(2, size, distiller.adapter.num_classes, seed)
    if getattr(distiller.student, 'rpn_head', None) is not None:
        for sample in batch['data_samples']:
            del sample.proposals  # a detector with an RPN would not use it
    return batch


def run_two_iterations(distiller: Distiller) -> None:
    """Trains two iterations and predicts once as everything that the distiller can predict as.

    Raises:
        FloatingPointError: A loss is not finite.
        RuntimeError: The student got no gradient, or the teacher changed.
    """
    before = distiller.teacher.fingerprint()
    optimizer = torch.optim.SGD([p for p in distiller.parameters() if p.requires_grad], 1e-4)
    distiller.train()
    for iteration in range(2):
        MessageHub.get_current_instance().update_info('iter', iteration)
        inputs, samples = model_inputs(distiller, generated_batch(distiller, iteration))
        losses = distiller(inputs, samples, mode='loss')
        total, terms = distiller.parse_losses(losses)
        bad = [name for name, value in terms.items() if not math.isfinite(float(value))]
        if bad:
            raise FloatingPointError(f'not finite: {bad}')
        optimizer.zero_grad()
        total.backward()
        if not any(p.grad is not None and p.grad.abs().sum() > 0 for p in distiller.student.backbone.parameters()):
            raise RuntimeError("no gradient reached the student's backbone")
        optimizer.step()
    distiller.eval()
    for variant in distiller.variants:
        distiller.set_variant(variant)
        inputs, samples = model_inputs(distiller, generated_batch(distiller, 2), training=False)
        distiller(inputs, samples, mode='predict')
    if distiller.teacher.fingerprint() != before:
        raise RuntimeError('the teacher changed')


def describe(error: BaseException) -> str:
    """First line of an error, short enough for a cell of a table."""
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}: {text[:200]}'


def _try(student: ConfigDict, teacher: FrozenTeacher, names: Sequence[str], result: dict[str, Any]) -> list[str]:
    try:
        distiller = build_distiller(student, teacher, [METHODS[name] for name in names])
    except ValueError as error:
        return ['n/a', describe(error)]
    except Exception as error:  # noqa: BLE001
        return ['fails', describe(error)]
    levels = distiller.match.teacher_levels
    result['features'] = '; '.join(_grouped(levels))
    result['multi_level'] = len(levels) > 1 and not distiller.match.pooled
    try:
        run_two_iterations(distiller)
    except Exception as error:  # noqa: BLE001
        return ['fails', describe(error)]
    off = 'ERA' in names and not distiller.methods[0].w_kd
    return ['works', 'KL term off' if off else '']


def _grouped(levels: Sequence) -> Iterator[str]:
    """Levels of equal width in one piece: ``'strides 8, 16, 32: 256'``."""
    widths = list(dict.fromkeys(level.channels for level in levels))
    for width in widths:
        strides = [str(level.stride) for level in levels if level.channels == width and level.stride is not None]
        yield f'{"/".join(strides)}: {width}' if strides else f'pooled: {width}'


def _dicts_in(node: Any) -> Iterator[dict]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ():
        yield from _dicts_in(child)
