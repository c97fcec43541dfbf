"""What can be judged without running anything: weights, classes, optimiser, sizes."""

import math
import numbers
import os.path as osp
from collections.abc import Iterator
from typing import Any, Optional

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch.utils.data import Dataset

from mmrkd.adapters.names import mirror_gap, names_in
from mmrkd.doctor.parts import role_of
from mmrkd.doctor.report import Report
from mmrkd.models import Distiller
from mmrkd.registry import type_name


def examine_settings(cfg: Config, report: Report) -> None:
    """Looks at the numbers in a config: weights of methods, batch size, learning rate, length of the training."""
    methods = cfg.model.get('methods') or []
    if not isinstance(methods, list) or not all(isinstance(method, dict) for method in methods):
        report.fault('method-argument', f'methods: expected a list [dict(type=...)], found {methods}')
        methods = []
    for method in methods:
        for name, value in _weights(method):
            if not math.isfinite(value) or value < 0:
                report.fault('bad-weight', f'{method.get("type")}: {name}={value}, expected a number of 0 or more')
    size = (cfg.get('train_dataloader') or {}).get('batch_size', 1)
    if not isinstance(size, numbers.Integral) or size < 1:
        report.fault('batch-size', f'train_dataloader.batch_size: expected a whole number of at least 1, found {size}')
    loop = cfg.get('train_cfg') or {}
    for name in ('max_epochs', 'max_iters'):
        if name in loop and (not isinstance(loop[name], numbers.Integral) or loop[name] < 1):
            found = f'train_cfg.{name}: expected a whole number of at least 1, found {loop[name]!r}'
            report.fault('train-length', found)
    start = cfg.get('load_from')
    if start and '://' not in start and not osp.exists(start):
        report.fault('student-weights', f'load_from: {start} is not there')
    rate = _learning_rate(cfg)
    if isinstance(rate, numbers.Real) and not (math.isfinite(rate) and rate > 0):
        report.fault('learning-rate', f'optim_wrapper.optimizer.lr: expected a number above 0, found {rate}')


def examine_distiller(distiller: Distiller, report: Report) -> None:
    """Looks at a distiller that was built: teacher, what is trained, which terms are there.

    Args:
        distiller: Is only read.
        report: Receives faults.
    """
    if not any(p.requires_grad for p in distiller.student.parameters()):
        report.fault('student-frozen', 'no parameter of the student requires a gradient')
    for name, teacher in distiller.teachers.items() if uses_teacher(distiller) else ():
        _examine_teacher(role_of(name), teacher.model, distiller.student, report)
    if not len(distiller.methods):
        report.fault('no-method', 'methods is empty')
    for name, method in distiller.methods.items():
        if not method.active:
            report.fault('zero-weight', f'{name}: every weight is 0, so neither the method nor the teacher is run')


def _examine_teacher(role: str, teacher: torch.nn.Module, student: torch.nn.Module, report: Report) -> None:
    broken = [k for k, v in teacher.state_dict().items() if v.is_floating_point() and not torch.isfinite(v).all()]
    if broken:
        report.fault('teacher-nan', f'{len(broken)} weights of the {role} are NaN or infinite: {", ".join(broken[:6])}')
    sizes = [sum(p.numel() for p in model.parameters()) for model in (student, teacher)]
    if sizes[1] < sizes[0]:
        report.fault('swapped', f'the {role} has {sizes[1]:,} parameters, fewer than the student with {sizes[0]:,}')
    if _shapes(student) == _shapes(teacher):
        kind = f'{type(teacher).__name__} with {sizes[1]:,} parameters'
        report.warn('equal-models', f'student and {role} are equal in name and shape of every weight: {kind}')


def _shapes(model: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


def uses_teacher(distiller: Distiller) -> bool:
    """Whether the trained teacher matters: deep mutual learning takes nothing but its config."""
    methods = distiller.methods.values()
    mutual = methods and not any(method.needs_teacher for method in methods)
    return bool(distiller.teachers) and (not mutual or bool(distiller.init_student))


def examine_classes(distiller: Distiller, datasets: dict[str, Dataset], report: Report) -> None:
    """Compares the classes of the data with those of the student and, by name, with the teacher's."""
    for where, dataset in datasets.items():
        meta = getattr(dataset, 'metainfo', None) or {}
        names = names_in(meta)
        if names is None:
            continue
        count = distiller.adapter.num_classes
        if count is not None and len(names) != count:
            report.fault(
                'class-count', f'{where} has {len(names)} classes, the head of the student num_classes={count}'
            )
            continue
        for name, teacher in distiller.teachers.items():
            known = teacher.classes
            if known is not None and tuple(known) != tuple(names):
                text = f'{where} has {tuple(names)}, the {role_of(name)} was trained for {tuple(known)}'
                if len(known) == len(names) or compares_classes(distiller, name):
                    report.fault('class-names', text)
                else:
                    report.say(f'{text}, and no method compares their classes')
                continue
            gap = mirror_gap(meta, teacher.dataset_meta)
            if gap is not None and teacher.class_map is None and compares_classes(distiller, name):
                report.fault('class-names', f'{where} and the data of the {role_of(name)} differ: {gap}')


def compares_classes(distiller: Distiller, teacher: str) -> bool:
    """Whether a method reads more than features of a teacher, so that its classes matter."""
    return any(m.compares_classes for m in distiller.methods.values() if m.active and m.teacher == teacher)


def build_optimizer(distiller: Distiller, cfg: Config, report: Report) -> Optional[OptimWrapper]:
    """Builds the optimiser of a config, or says why it cannot be built."""
    with report.expecting('optimizer'):
        if not cfg.get('optim_wrapper'):
            raise ValueError('the config has no optim_wrapper')
        return build_optim_wrapper(distiller, cfg.optim_wrapper)
    return None


def examine_optimizer(distiller: Distiller, optimizer: OptimWrapper, report: Report) -> None:
    """Looks whether an optimiser moves the student."""
    own = {id(p) for p in distiller.student.parameters() if p.requires_grad}
    if not own or any(fault.name == 'learning-rate' for fault in report.faults):
        return  # said already
    groups = optimizer.param_groups
    if isinstance(groups, dict):  # several optimisers
        groups = [group for part in groups.values() for group in part]
    if not any(id(p) in own for group in groups if group.get('initial_lr', group['lr']) > 0 for p in group['params']):
        report.fault('nothing-trained', f'none of the {len(own)} parameters of the student has a learning rate above 0')


def examine_schedule(distiller: Distiller, cfg: Config, epoch_length: int, report: Report) -> None:
    """Plays the schedule and looks what it leaves of the learning rate to methods that train in phases.

    Args:
        distiller: Is only read.
        cfg: Config of the run.
        epoch_length: Iterations of an epoch.
        report: Receives faults.
    """
    starts = {epoch for method in distiller.methods.values() for epoch in method.phase_epochs}
    whole = _learning_rate(cfg)
    schedules = cfg.get('param_scheduler') or []
    schedules = schedules if isinstance(schedules, list) else [schedules]
    if not starts or not _is_number(whole) or not whole > 0:
        return
    kinds = [type_name(schedule) for schedule in schedules]
    if not all(kinds) or any(word in kind for kind in kinds for word in ('Momentum', 'Plateau')):
        return  # by optimiser, of something else, or by what is not known before
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=whole)
    arguments = dict(optimizer=optimizer, epoch_length=epoch_length)
    schedules = [PARAM_SCHEDULERS.build(dict(schedule), default_args=arguments) for schedule in schedules]
    optimizer.step()  # with nothing to do: the schedules warn without it
    for epoch in range(1, max(starts) + 1):
        steps = [s for s in schedules if not s.by_epoch] * epoch_length + [s for s in schedules if s.by_epoch]
        for schedule in steps:
            schedule.step()
        rate = optimizer.param_groups[0]['lr']
        if epoch in starts and rate < 0.02 * whole:
            report.fault('schedule-spent', f'a learning rate of {rate:.1e}, of {whole}, is left after epoch {epoch}')


def _learning_rate(cfg: Config) -> Optional[float]:
    return ((cfg.get('optim_wrapper') or {}).get('optimizer') or {}).get('lr')


def _weights(method: dict) -> Iterator[tuple[str, float]]:
    """Numbers in a method's config that are weights by their name: ``w_feat``, ``loss_weight``, ``branch_weights``."""
    for key, value in method.items():
        if key.startswith('w_') or 'weight' in key:
            for number in value if isinstance(value, (list, tuple)) else [value]:
                if _is_number(number):
                    yield key, number


def _is_number(value: Optional[Any]) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
