"""Builds a distiller, or finds out which of its parts cannot be built."""

import contextlib
import inspect
import pickle
import pickletools
from collections.abc import Sequence
from typing import Any, Optional

from mmengine.config import Config, ConfigDict
from torch import nn

from mmrkd.adapters import ModelAdapter, build_adapter
from mmrkd.checkpoint import load_checkpoint_file, load_strictly
from mmrkd.doctor.parts import role_of
from mmrkd.doctor.report import Report, shortened
from mmrkd.engine.compose import find_method
from mmrkd.models import Distiller
from mmrkd.models.inheritance import check_parts
from mmrkd.models.methods.arguments import check_arguments
from mmrkd.models.methods.method_dict import build_method
from mmrkd.models.teacher import FrozenTeacher, load_model_config
from mmrkd.registry import MODELS, type_name


def build_distiller(cfg: Config, report: Report) -> Optional[Distiller]:
    """Returns the distiller of a config, or ``None`` and faults that say which part of it is wrong.

    The usual way is tried first. Only if it fails, each part is built by itself, so that one run names them all.
    """
    model = ConfigDict(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    try:
        _check_arguments(model)
        return MODELS.build(model)
    except Exception as error:  # whatever it is, the parts are looked at
        known = len(report.faults)
        with report.expecting('build-failed'):
            _examine_parts(model, report)
        said = any(fault.name == 'method-argument' for fault in report.faults)  # where methods are no list
        if len(report.faults) == known and not said:
            report.fault('build-failed', shortened(error))
    return None


def _check_arguments(model: ConfigDict) -> None:
    """Raises what is wrong with the names and kinds of arguments; what cannot be looked up is said elsewhere."""
    _check_distiller(model)
    for name, teacher in _teachers(model).items():
        if isinstance(teacher, dict):
            _check_teacher(role_of(name), teacher)
    _check_scopes(model)
    methods = model.get('methods')
    for method in methods if isinstance(methods, list) else ():
        kind = MODELS.get(method['type']) if isinstance(method, dict) and isinstance(method.get('type'), str) else None
        if isinstance(kind, type):
            check_arguments(kind, method)


def _check_distiller(model: ConfigDict) -> None:
    kind = MODELS.get(model.type) if isinstance(model.type, str) else model.type
    own = {key: value for key, value in model.items() if key != 'methods'}  # it is looked at with the settings
    check_arguments(kind if isinstance(kind, type) else Distiller, own, shared=('methods',))


def _check_teacher(role: str, cfg: dict) -> None:
    check_arguments(FrozenTeacher, cfg, shared=())
    misplaced = [key for key in ('type', '_scope_') if key in cfg]
    if misplaced:
        raise TypeError(f'{role}: {" and ".join(misplaced)} belong to its model: {role}=dict(cfg=dict(...), ckpt=...)')


def _teachers(model: ConfigDict) -> dict[str, Any]:
    """Returns the configs of the teachers by name: ``teacher`` is the short form of one."""
    named = model.get('teachers')
    return {
        **(dict(default=model.teacher) if model.get('teacher') else {}),
        **(named if isinstance(named, dict) else {}),
    }


def _check_scopes(model: ConfigDict) -> None:
    """Raises ValueError where a model says twice, and differently, whose parts it is made of."""
    teachers = {role_of(name): cfg.get('cfg') for name, cfg in _teachers(model).items() if isinstance(cfg, dict)}
    for role, cfg in dict(teachers, student=model.get('student')).items():
        cfg = cfg.get('model', cfg) if isinstance(cfg, dict) else {}
        before, scope = str(cfg.get('type')).rpartition('.')[0], cfg.get('_scope_')
        if {before, scope} == {'mmdet', 'mmpretrain'}:  # a class of one's own may well stand in another registry
            raise ValueError(f'the {role} has _scope_={scope!r} and type={cfg["type"]!r}: its parts are of {scope}')


def _examine_parts(model: ConfigDict, report: Report) -> None:
    with report.expecting('distiller-argument'):
        _check_distiller(model)
    try:
        _check_scopes(model)
    except ValueError as error:
        return report.fault('scope', str(error))  # whatever else fails then fails for this reason
    student = _build_student(model, report)
    with report.expecting('init-student'):
        if student is not None:
            check_parts(student.model, model.get('init_student', ()))
    given = model.get('methods')
    given = given if isinstance(given, (list, tuple)) else []
    methods = [_build_method(method, report) for method in given]
    teachers = _teachers(model)
    if not teachers and not (given and all(m is not None and not m.needs_teacher for m in methods)):
        teachers = dict(default={})
    built = {name: _build_teacher(role_of(name), cfg, student, report) for name, cfg in teachers.items()}
    if student is None or None in built.values():
        return
    for name, teacher in built.items():
        if type(student) is not type(teacher.adapter):
            kinds = type(student.model).__name__, type(teacher.model).__name__
            report.fault('kind-mismatch', f'the student is a {kinds[0]}, the {role_of(name)} a {kinds[1]}')
            return
    _examine_wiring(model, built, [cfg for cfg, method in zip(given, methods) if method is not None], student, report)


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
            return build_adapter(student, model.get('at', 'backbone'))
    return None


def _build_teacher(role: str, cfg: Any, student: Optional[ModelAdapter], report: Report) -> Optional[FrozenTeacher]:
    """Builds a teacher, and names what is wrong with its config and, independently, with its checkpoint."""
    model = checkpoint = None
    if isinstance(cfg, FrozenTeacher):
        return cfg
    if not isinstance(cfg, dict):
        report.fault('teacher-config', f'{role}: expected dict(cfg=..., ckpt=...), found {cfg!r}')
        return None
    with report.expecting('teacher-argument'):
        _check_teacher(role, cfg)
    with report.expecting('teacher-config'):
        if not cfg.get('cfg'):
            raise ValueError(f"the {role} has no config: teacher=dict(cfg=..., ckpt='teacher.pth')")
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
        known = inspect.signature(FrozenTeacher).parameters
        at = 'backbone' if student is None else student.at
        return FrozenTeacher(**{'at': at, **{key: value for key, value in cfg.items() if key in known}})
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
        name = type_name(cfg)
        kind = cfg.get('type') if isinstance(cfg.get('type'), type) else MODELS.get(name)
        if kind is None:
            find_method(name)
            raise ValueError(f'there is no method {name!r}: write mmrkd.{find_method(name)}')
        with report.expecting('method-argument'):
            return build_method(cfg)
    return None


def _examine_wiring(
    model: ConfigDict,
    teachers: dict[str, FrozenTeacher],
    methods: Sequence[dict],
    student: ModelAdapter,
    report: Report,
) -> None:
    """Wires the methods one by one, each in a distiller of its own, and names what stands in the way."""

    def wire(parts: list) -> None:
        own = {key: model[key] for key in ('data_preprocessor', 'resize', 'at') if key in model}
        Distiller(model.student, methods=parts, teachers=teachers, **own)

    faults = len(report.faults)
    with report.expecting('build-failed', NoCommonStride='no-common-stride'):
        wire([])
    if len(report.faults) > faults:
        return
    same_classes = all(student.num_classes == teacher.num_classes for teacher in teachers.values())
    for method in methods:
        names = dict(KeyError='tap-not-found', HeadsDiffer='heads-differ', MixedViews='views-mixed')
        with report.expecting('method-refused' if same_classes else 'class-count', **names):
            wire([method])
