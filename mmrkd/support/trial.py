"""One trial: a stock config as teacher, a small variant of it as student, two iterations and a prediction."""

import math
import os.path as osp
import tempfile
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any, Callable, Optional

import torch
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.utils import get_installed_path
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm

from mmrkd.adapters import ModelAdapter, build_adapter
from mmrkd.models import Distiller, FrozenTeacher
from mmrkd.models.pair import HeadsDiffer
from mmrkd.models.teacher import load_model_config
from mmrkd.testing import (
    annotated_batch,
    build_distiller,
    build_model,
    classification_batch,
    model_inputs,
    save_random_teacher,
    segmentation_batch,
)

WIDTHS = (256, 512, 1024, 2048)  # of the stages of ResNet-50; a quarter of them are those of ResNet-18
FEW_BRANCHES = dict(num_branches=2, num_blocks=1, kernel_size=1)
STAND_INS = {'mmpretrain': 'mmpretrain::resnet/resnet18_8xb32_in1k.py'}
METHODS = {
    'ERA': dict(type='mmrkd.ERA', w_kd=1.0, **FEW_BRANCHES),
    'ERA without TWI': dict(type='mmrkd.ERA', w_kd=0, twi_on='none', **FEW_BRANCHES),
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
    stock = lighten(load_stock_config(name))
    result: dict[str, Any] = {'features': '', 'multi_level': False}
    try:
        with tempfile.TemporaryDirectory() as folder:
            teacher = FrozenTeacher(**save_random_teacher(stock, folder))
        teacher.adapter.dry_run()
        calibrate(teacher.adapter, _size(teacher.adapter))
        student = small_variant(stock)
        methods = _try_all(student, teacher, result)
        error = error_of(run_plainly, student, 'loss') if _failed(methods) else None
    except Exception as raised:  # noqa: BLE001 - the matrix reports whatever happens
        error, teacher = raised, None
    if error is not None:
        reason = f'fails without distillation too: {describe(error)}'
        methods = {method: ['n/a', reason] for method in ('ERA', 'FitNets')}
        stand_in = STAND_INS.get(name.split('::')[0]) if teacher is not None else None
        if stand_in is not None:  # it cannot be trained, but can teach
            taught = _try_all(lighten(load_stock_config(stand_in)), teacher, result)
            taught = {m: [status, f'as a teacher of {stand_in}; {reason}'] for m, (status, _) in taught.items()}
            methods.update({m: outcome for m, outcome in taught.items() if outcome[0] == 'works'})
    return {**result, 'methods': methods}


def load_stock_config(name: str) -> ConfigDict:
    """Returns the model of a stock config, also from ``gn+ws``, a name that mmengine's own look-up refuses."""
    library, path = name.split('::')
    return load_model_config(osp.join(get_installed_path(library), '.mim', 'configs', path))


def lighten(cfg: ConfigDict) -> ConfigDict:
    """Removes what needs a download, a GPU or a long time on the CPU; nothing that makes the family.

    No pretrained weights, no synchronised norm, small paddings and batch resizes, few proposals and queries.
    """
    cfg = deepcopy(cfg)
    for node in _dicts_in(cfg):
        if isinstance(node.get('init_cfg'), dict) and 'checkpoint' in node['init_cfg']:
            node['init_cfg'] = None
        for key, value in _LIGHTER.get(node.get('type'), {}).items():
            node[key] = value
        for key, most in dict(nms_pre=200, num_queries=100, num_proposals=50).items():
            if isinstance(node.get(key), int):
                node[key] = min(node[key], most)
        if 'nms_pre' in node and 'max_per_img' in node:
            node['max_per_img'] = min(node['max_per_img'], 50)
        node.update({key: None for key in ('teacher_ckpt', 'pretrained') if key in node})
    return cfg


_LIGHTER = {
    'SyncBN': dict(type='BN'),
    'MMSyncBN': dict(type='BN'),
    'RandomSampler': dict(num=64),
    'SegDataPreProcessor': dict(size=None, size_divisor=32),
    'BatchFixedSizePad': dict(size=(128, 128)),
    'BatchSyncRandomResize': dict(random_size_range=(128, 192), interval=1),
}


def small_variant(cfg: ConfigDict) -> ConfigDict:
    """Returns a detector on a ResNet-18 where it stands on a plain ResNet-50 or 101, else the model itself."""
    cfg = deepcopy(cfg)
    if 'head' in cfg or cfg.get('backbone', {}).get('type') != 'ResNet' or cfg.backbone.get('depth') not in (50, 101):
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


def generated_batch(adapter: ModelAdapter, size: int, seed: int) -> dict:
    """Random images with all the ground truth that this kind of model can ask for."""
    if adapter.task == 'segmentation':
        return segmentation_batch(2, (size, size), adapter.num_classes, seed)
    if hasattr(adapter.model, 'head'):
        mean = getattr(adapter.model.data_preprocessor, 'mean', None)
        return classification_batch(2, size, adapter.num_classes, seed, channels=3 if mean is None else len(mean))
    batch = annotated_batch(2, size, adapter.num_classes, seed)
    if not (hasattr(adapter.model, 'mask_head') or any(hasattr(m, 'loss_mask') for m in adapter.model.modules())):
        for sample in batch['data_samples']:
            del sample.gt_instances.masks  # some detectors of boxes take masks for something else
    if getattr(adapter.model, 'rpn_head', None) is not None:
        for sample in batch['data_samples']:
            del sample.proposals  # a detector with an RPN would not use it
    return batch


def calibrate(adapter: ModelAdapter, size: int) -> None:
    """Gives norms the statistics of one batch: with those of a fresh model, deep ones overflow in evaluation mode."""
    inner = getattr(adapter.model, 'teacher_model', None)  # LD and LAD distil by themselves
    bodies = [adapter.model] if inner is None else [adapter.model, inner]
    norms = [module for body in bodies for module in body.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    inputs, _ = model_inputs(adapter.model, generated_batch(adapter, size, 0), training=False)
    with adapter.evaluating():
        for norm in norms:
            norm.training, norm.momentum = True, 1.0
        adapter.extract(inputs)
        if inner is not None:
            getattr(adapter.model, 'extract_teacher_feat', getattr(inner, 'extract_feat', None))(inputs)
        adapter.model.eval()
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
        if norm.running_var is not None:  # of two pixels a channel may have next to none
            norm.running_var.clamp_(min=float(norm.running_var.mean()) / 2)


def train_two_iterations(distiller: Distiller) -> None:
    """Trains two iterations.

    Raises:
        FloatingPointError: A loss is not finite.
        RuntimeError: The student got no gradient, or the teacher changed.
    """
    before, size = distiller.teacher.fingerprint(), size_of(distiller)
    optimizer = torch.optim.SGD([p for p in distiller.parameters() if p.requires_grad], 1e-4)
    distiller.train()
    for iteration in range(2):
        _tell_the_time(iteration)
        inputs, samples = model_inputs(distiller, generated_batch(distiller.adapter, size, iteration))
        total, terms = distiller.parse_losses(distiller(inputs, samples, mode='loss'))
        bad = [name for name, value in terms.items() if not math.isfinite(float(value.detach()))]
        if bad:
            raise FloatingPointError(f'not finite: {bad}')
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(distiller.parameters(), 10)
        body = [p for name, p in distiller.student.named_parameters() if 'head' not in name]
        if not any(p.grad is not None and p.grad.abs().sum() > 0 for p in body):
            raise RuntimeError("no gradient reached the student's backbone")
        optimizer.step()
    if distiller.teacher.fingerprint() != before:
        raise RuntimeError('the teacher changed')


def predict_as_all_variants(distiller: Distiller) -> None:
    """Predicts once as everything that the distiller can predict as."""
    distiller.eval()
    for variant in distiller.variants:
        distiller.set_variant(variant)
        batch = generated_batch(distiller.adapter, size_of(distiller), 2)
        inputs, samples = model_inputs(distiller, batch, training=False)
        distiller(inputs, samples, mode='predict')


def run_plainly(cfg: ConfigDict, mode: str) -> None:
    """Computes the losses of a model without any distillation, or predicts once."""
    adapter = build_adapter(build_model(cfg))
    adapter.dry_run()
    size = _size(adapter)
    calibrate(adapter, size)
    adapter.model.train(mode == 'loss')
    _tell_the_time(0)
    inputs, samples = model_inputs(adapter.model, generated_batch(adapter, size, 0), mode == 'loss')
    adapter.model(inputs, samples, mode=mode)


def describe(error: BaseException) -> str:
    """First line of an error, short enough for a cell of a table."""
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}: {text[:200]}'


def _try_all(student: ConfigDict, teacher: FrozenTeacher, result: dict[str, Any]) -> dict[str, list[str]]:
    """Tries both methods at once, and one by one if that does not work."""
    both = _try(student, teacher, ('ERA', 'FitNets'), result)
    if both[0] == 'works':
        return {'ERA': both, 'FitNets': ['works', '']}
    methods = {name: _try(student, teacher, (name,), result) for name in ('ERA', 'FitNets')}
    if methods['ERA'][0] != 'works':
        methods['ERA without TWI'] = _try(student, teacher, ('ERA without TWI',), result)
    return methods


def _failed(methods: dict[str, list[str]]) -> bool:
    return any(status != 'works' for status, _ in methods.values())


def _try(student: ConfigDict, teacher: FrozenTeacher, names: Sequence[str], result: dict[str, Any]) -> list[str]:
    try:
        distiller = _build(student, teacher, [METHODS[name] for name in names])
    except ValueError as error:
        return ['n/a', describe(error)]
    except Exception as error:  # noqa: BLE001
        return ['fails', describe(error)]
    levels = distiller.match.teacher_levels
    result['features'] = '; '.join(grouped(levels))
    result['multi_level'] = len(levels) > 1 and not distiller.match.vectors
    remarks = ['KL term off'] if 'ERA' in names and not distiller.methods[0].w_kd else []
    try:
        calibrate(distiller.adapter, size_of(distiller))
        train_two_iterations(distiller)
        predict_as_all_variants(distiller)
    except Exception as error:  # noqa: BLE001
        own = None if distiller.training else error_of(run_plainly, student, 'predict')
        if own is None:
            return ['fails', describe(error)]
        remarks.append(f'trains; its prediction fails without distillation too ({describe(own)})')
    return ['works', '; '.join(remarks)]


def _build(student: ConfigDict, teacher: FrozenTeacher, methods: Sequence[dict]) -> Distiller:
    """Builds with the KL term of ERA, or without it where the heads do not line up."""
    try:
        return build_distiller(student, teacher, methods)
    except HeadsDiffer:
        return build_distiller(
            student, teacher, [{**method, 'w_kd': 0} if 'w_kd' in method else method for method in methods]
        )


def error_of(function: Callable, *args: Any) -> Optional[Exception]:
    """Returns what a function raises; ``None`` if it does not."""
    try:
        function(*args)
    except Exception as error:  # noqa: BLE001
        return error
    return None


def _tell_the_time(iteration: int) -> None:
    """What a runner tells: TOOD asks for the epoch, the batch resizing of YOLOX for the iteration."""
    hub = MessageHub.get_current_instance()
    hub.update_info('epoch', 0)
    hub.update_info('iter', iteration)


def _size(*adapters: ModelAdapter) -> int:
    deep = any(type(module).__name__ == 'HourglassNet' for adapter in adapters for module in adapter.model.modules())
    least = 256 if deep else 0  # at 128 its inmost norms see one pixel of an image, and gradients overflow
    return max(least, *(adapter.dry_size for adapter in adapters))


def size_of(distiller: Distiller) -> int:
    """Returns the side of the images that both models can run on."""
    return _size(distiller.adapter, distiller.teacher.adapter)


def grouped(levels: Sequence) -> Iterator[str]:
    """Yields levels of equal width in one piece: ``'strides 8, 16, 32: 256'``."""
    widths = list(dict.fromkeys(level.channels for level in levels))
    for width in widths:
        strides = [str(level.stride) for level in levels if level.channels == width and level.stride is not None]
        yield f'{"/".join(strides)}: {width}' if strides else f'pooled: {width}'


def _dicts_in(node: Any) -> Iterator[dict]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ():
        yield from _dicts_in(child)
