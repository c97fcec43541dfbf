"""Builds a distiller, or finds out which of its parts cannot be built."""

import contextlib
import pickle
import pickletools
from collections.abc import Sequence
from typing import Any, Optional

from mmengine.config import Config, ConfigDict
from torch import nn

from mmrkd.adapters import ModelAdapter, build_adapter
from mmrkd.checkpoint import load_checkpoint_file, load_strictly
from mmrkd.doctor.report import Report, shortened
from mmrkd.engine.compose import find_method
from mmrkd.models import Distiller
from mmrkd.models.inheritance import check_parts
from mmrkd.models.teacher import FrozenTeacher, load_model_config
from mmrkd.registry import MODELS


def build_distiller(cfg: Config, report: Report) -> Optional[Distiller]:
    """Returns the distiller of a config, or ``None`` and faults that say which part of it is wrong.

    The usual way is tried first. Only if it fails, each part is built by itself, so that one run names them all.
    """
    model = ConfigDict(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    try:
        return MODELS.build(model)
    except Exception as error:  # whatever it is, the parts are looked at
        known = len(report.faults)
        with report.expecting('build-failed'):
            _examine_parts(model, report)
        if len(report.faults) == known:
            report.fault('build-failed', shortened(error))
    return None


def _examine_parts(model: ConfigDict, report: Report) -> None:
    student = _build_student(model, report)
    with report.expecting('init-student'):
        if student is not None:
            check_parts(student.model, model.get('init_student', ()))
    teacher = _build_teacher(model.get('teacher') or {}, student, report)
    methods = [_build_method(method, report) for method in model.get('methods') or []]
    if student is None or teacher is None:
        return
    if type(student) is not type(teacher.adapter):
        kinds = type(student.model).__name__, type(teacher.model).__name__
        report.fault('kind-mismatch', f'the student is a {kinds[0]}, the teacher a {kinds[1]}')
        return
    _examine_wiring(model, teacher, [method for method in methods if method is not None], student, report)


def _build_student(model: ConfigDict, report: Report) -> Optional[ModelAdapter]:
    with report.expecting('student-config'):
        if not model.get('student'):
            raise ValueError('the distiller has no student: expected student=_base_.model or a config')
        cfg = load_model_config(model.student)
        if model.get('data_preprocessor') is not None:
            cfg.setdefault('data_preprocessor', model.data_preprocessor)
        student = MODELS.build(cfg)
        with report.expecting('student-kind'):
            if not hasattr(student, 'extract_feat'):
                raise TypeError(f'{type(student).__name__} is no whole model: it has no extract_feat')
            return build_adapter(student)
    return None


def _build_teacher(cfg: Any, student: Optional[ModelAdapter], report: Report) -> Optional[FrozenTeacher]:
    """Builds the teacher, and names what is wrong with its config and, independently, with its checkpoint."""
    model = checkpoint = None
    if not isinstance(cfg, dict):
        report.fault('teacher-config', f'expected teacher=dict(cfg=..., ckpt=...), found {cfg!r}')
        return None
    with report.expecting('teacher-config'):
        if not cfg.get('cfg'):
            raise ValueError("the teacher has no config: teacher=dict(cfg=..., ckpt='teacher.pth')")
        model = MODELS.build(load_model_config(cfg['cfg']))
        build_adapter(model)
    ckpt = cfg.get('ckpt')
    if not ckpt:
        report.fault('teacher-checkpoint-missing', 'no ckpt is given: an untrained teacher only teaches noise')
        return None
    try:
        checkpoint = load_checkpoint_file(ckpt, cfg.get('allow_pickle', False))
    except FileNotFoundError as error:
        report.fault('teacher-checkpoint-missing', shortened(error))
    except Exception as error:  # torch raises whatever the broken bytes lead to
        unsafe = isinstance(error.__cause__, pickle.UnpicklingError) and _runs_code(ckpt, error.__cause__)
        report.fault(f'teacher-checkpoint-{"unsafe" if unsafe else "unreadable"}', shortened(error))
    if model is None or checkpoint is None:
        return None
    try:
        load_strictly(model, checkpoint['state_dict'], f'the checkpoint {ckpt!r}')
        return FrozenTeacher(**cfg)
    except Exception as error:
        report.fault(_name_of_mismatch(model, checkpoint['state_dict'], student), shortened(error))
    return None


def _runs_code(path: str, error: pickle.UnpicklingError) -> bool:
    """Whether the reader refused a class or function, and not bytes that mean nothing."""
    if 'global' in str(error).lower() or 'not among the names' in str(error):
        return True
    with contextlib.suppress(ValueError), open(path, 'rb') as file:
        return any(op.name in ('GLOBAL', 'STACK_GLOBAL', 'INST') for op, *_ in pickletools.genops(file))
    return False


def _name_of_mismatch(model: nn.Module, state: dict[str, Any], student: Optional[ModelAdapter]) -> str:
    def shapes(weights: dict[str, Any]) -> dict[str, tuple]:
        return {k: tuple(v.shape) for k, v in weights.items() if not k.endswith('num_batches_tracked')}

    found, expected = shapes({k.removeprefix('module.'): v for k, v in state.items()}), shapes(model.state_dict())
    if student is not None and found == shapes(student.model.state_dict()):
        return 'swapped'
    differing = [k for k in expected if found.get(k) != expected[k]]
    same_keys = found.keys() == expected.keys()
    return 'class-count' if same_keys and all('head' in k for k in differing) else 'teacher-checkpoint-mismatch'


def _build_method(cfg: Any, report: Report) -> Optional[nn.Module]:
    with report.expecting('method-unknown', AttributeError='method-argument'):
        name = str(cfg.get('type'))
        if MODELS.get(name) is None:
            find_method(name)
            raise ValueError(f'there is no method {name!r}: write mmrkd.{find_method(name)}')
        with report.expecting('method-argument'):
            return MODELS.build(cfg)
    return None


def _examine_wiring(
    model: ConfigDict, teacher: FrozenTeacher, methods: Sequence[nn.Module], student: ModelAdapter, report: Report
) -> None:
    """Wires the methods one by one, each in a distiller of its own, and names what stands in the way."""

    def wire(parts: list) -> None:
        own = {key: model[key] for key in ('data_preprocessor', 'resize') if key in model}
        Distiller(model.student, teacher, parts, **own)

    faults = len(report.faults)
    with report.expecting('build-failed', NoCommonStride='no-common-stride'):
        wire([])
    if len(report.faults) > faults:
        return
    same_classes = student.num_classes == teacher.adapter.num_classes
    for method in methods:
        with report.expecting('method-refused' if same_classes else 'class-count', KeyError='tap-not-found'):
            wire([method])
