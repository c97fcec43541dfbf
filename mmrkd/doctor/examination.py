"""The pre-flight check: everything that can be known about a distillation before it is trained."""

from collections.abc import Iterable
from copy import deepcopy
from typing import Optional

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import get_world_size
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from torch.utils.data import Dataset

from mmrkd.adapters import ModelAdapter
from mmrkd.doctor.annotations import examine_annotations
from mmrkd.doctor.boxes import Boxes, anchor_sizes, examine_reach, scale_of
from mmrkd.doctor.construction import build_distiller
from mmrkd.doctor.parts import role_of
from mmrkd.doctor.report import Report
from mmrkd.doctor.samples import build_datasets, has_content
from mmrkd.doctor.settings import (
    build_optimizer,
    examine_classes,
    examine_distiller,
    examine_optimizer,
    examine_schedule,
    examine_settings,
    uses_teacher,
)
from mmrkd.doctor.trial import score_teachers, try_batch
from mmrkd.engine.isolation import quiet, untouched_randomness
from mmrkd.engine.prepare import is_distillation
from mmrkd.engine.samples import small_loader, spread
from mmrkd.models import Distiller
from mmrkd.models.methods import DEFAULT
from mmrkd.structures import LevelMatch

BRIEF_BATCH, BRIEF_IMAGES = 2, 8  # of detectors: images of the step and for the teacher, where the check is brief


def examine(cfg: Config, images: Optional[int] = None, ignore: Iterable[str] = ()) -> Report:
    """Builds everything that a training needs, tries one step and evaluates the teacher on a few images.

    Args:
        cfg: A distillation config, not prepared (its data may be missing). Not changed.
        images: Validation images, see :func:`mmrkd.doctor.trial.score_teachers`.
        ignore: Names of faults to accept.

    Returns:
        What was found; nothing is raised for what is wrong with the config.
    """
    report = Report(ignore)
    if not is_distillation(cfg):
        report.fault('not-a-distillation', f'the model is a {cfg.get("model", {}).get("type")}')
        return report
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    cfg = Config(deepcopy(cfg._cfg_dict))
    with quiet(), untouched_randomness():
        set_random_seed((cfg.get('randomness') or {}).get('seed') or 0)
        with report.expecting('config-unreadable'):
            examine_settings(cfg, report)
        distiller, datasets = build_distiller(cfg, report), build_datasets(cfg, report)
        if distiller is None:
            with report.expecting('data-unreadable'):
                examine_annotations(cfg, datasets, report)
            return report
        with report.expecting('student-weights', InheritanceError='init-student'):
            distiller.init_weights()
        optimizer = build_optimizer(distiller, cfg, report)
        if optimizer is not None:
            examine_optimizer(distiller, optimizer, report)
        distiller.to(get_device())
        examine_run(distiller, datasets, cfg, report, images)
    return report


def examine_run(
    distiller: Distiller,
    datasets: dict[str, Dataset],
    cfg: Config,
    report: Report,
    images: Optional[int] = None,
    thorough: bool = True,
) -> None:
    """Examines a distiller together with the data of its run.

    Args:
        distiller: Its student and methods are changed: give a copy of one that is still to be trained.
        datasets: ``train_dataloader`` and ``val_dataloader``, or what there is of them.
        cfg: Config of the run.
        report: Receives what is found.
        images: Validation images for the teacher.
        thorough: See :func:`mmrkd.doctor.trial.try_batch`; if not, fewer images of detectors are looked at.
    """
    if not thorough and distiller.adapter.task == 'detection':
        images = images or BRIEF_IMAGES
    boxes: dict[str, list[Boxes]] = {}
    with report.expecting('data-unreadable'):
        boxes = examine_annotations(cfg, datasets, report)
    with report.expecting('build-failed'):
        _describe(distiller, report)
        examine_distiller(distiller, report)
        datasets = {name: dataset for name, dataset in datasets.items() if has_content(name, dataset, report)}
        examine_classes(distiller, datasets, report)
    if any(fault.name in ('class-count', 'teacher-nan', 'batch-size') for fault in report.faults):
        return  # what follows would fail for the same reason
    if 'train_dataloader' in datasets:
        _examine_step(distiller, datasets['train_dataloader'], boxes.get('train_dataloader', ()), cfg, report, thorough)
    if not uses_teacher(distiller):
        report.say('no method needs the trained teacher: it was not evaluated')
    elif not cfg.get('val_dataloader') or not cfg.get('val_evaluator'):
        report.say('no val_dataloader or no val_evaluator: the teacher was not evaluated')
    elif 'val_dataloader' in datasets:
        score_teachers(distiller, datasets['val_dataloader'], cfg, images, report)


def _examine_step(
    distiller: Distiller, dataset: Dataset, boxes: Iterable[Boxes], cfg: Config, report: Report, thorough: bool
) -> None:
    batch, loader = None, cfg.train_dataloader
    wanted = loader.get('batch_size', 1) * get_world_size()
    if loader.get('drop_last') and len(dataset) < wanted:
        report.fault('batch-size', f'{len(dataset)} images for training give no batch of {wanted}')
    with report.expecting('optimizer'):
        examine_schedule(distiller, cfg, max(1, len(dataset) // wanted), report)
    with report.expecting('data-unreadable', FileNotFoundError='missing-images'):
        if not thorough and distiller.adapter.task == 'detection':
            loader = dict(loader, batch_size=min(loader.get('batch_size', 1), BRIEF_BATCH))
            wanted = loader['batch_size']
        batch = next(iter(small_loader(dataset, spread(len(dataset), wanted), loader)))
        for part in boxes:
            examine_reach(part, anchor_sizes(distiller.student), scale_of(batch), report)
    if batch is not None:
        try_batch(distiller, batch, report, thorough)


def _describe(distiller: Distiller, report: Report) -> None:
    _describe_model('student', distiller.adapter, '', report)
    for name, teacher in distiller.teachers.items():
        source = f', all {len(teacher.model.state_dict())} keys loaded from {teacher.ckpt}'
        _describe_model(role_of(name), teacher.adapter, source, report)
        classes = ', '.join(teacher.classes or ['no names in its checkpoint'])
        report.say(f'classes of the {role_of(name)}: {classes}')
    if distiller.inherited:
        report.say(f'init_student: {distiller.inherited}')
    if distiller.match is not None:
        _describe_wiring(distiller, report)


def _describe_model(role: str, adapter: ModelAdapter, source: str, report: Report) -> None:
    size = sum(p.numel() for p in adapter.model.parameters()) / 1e6
    report.say(
        f'{role}: {type(adapter.model).__name__}, {size:.3f} M parameters, {adapter.num_classes} classes{source}'
    )


def _describe_wiring(distiller: Distiller, report: Report) -> None:
    rows = []
    for teacher, pair in distiller.pairs.items():
        rows += (
            [] if pair.match is None else _describe_levels(pair.match, '' if teacher == DEFAULT else f' of {teacher}')
        )
    for name, method in distiller.methods.items():
        adapters = dict(student=distiller.adapter)
        if method.teacher is not None:
            adapters['teacher'] = method.pair.teacher.adapter
        for role, adapter in adapters.items():
            for tap, output in adapter.dry_run_taps(getattr(method, f'{role}_taps')).items():
                shape = str(tuple(output.shape)) if torch.is_tensor(output) else type(output).__name__
                cells = (tap, shape, '', '') if role == 'student' else ('', '', tap, shape)
                rows.append((*cells, f'tap of {name}'))
    report.table('wiring:', ('student', '', 'teacher', '', 'projection'), rows)


def _describe_levels(match: LevelMatch, of: str) -> list[tuple[str, ...]]:
    rows = []
    for s, t in match.pairs:
        own, other = match.student_levels[s], match.teacher_levels[t]
        rows.append((f'level {s}', str(own), f'level {t}{of}', str(other), f'{own.channels} -> {other.channels}'))
    for index, level in enumerate(match.teacher_levels):
        if index not in [t for _, t in match.pairs]:
            rows.append(('-', '', f'level {index}{of}', str(level), 'not matched'))
    return rows
