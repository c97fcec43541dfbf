"""A distillation config made of a student's config, a teacher and the names of methods."""

import argparse
import difflib
import os.path as osp
import re
from collections.abc import Sequence

from mmengine.config import Config, ConfigDict

from mmrkd.arguments import add_compose_arguments
from mmrkd.engine.prepare import is_distillation
from mmrkd.models import DistillMethod
from mmrkd.models.teacher import read_config_file
from mmrkd.plain_config import written_out
from mmrkd.registry import MODELS

__all__ = ['add_compose_arguments', 'compose', 'compose_from_arguments', 'find_method', 'method_names']


def compose_from_arguments(cfg: Config, args: argparse.Namespace) -> Config:
    """Returns the distillation that the command line asks for, or the config as it is if it asks for none.

    Raises:
        ValueError: Only some of the arguments are there, or the config is a distillation already.
    """
    teacher, ckpt = getattr(args, 'teacher', None), getattr(args, 'teacher_ckpt', None)
    methods, init_student = getattr(args, 'method', None) or [], getattr(args, 'init_student', None)
    given = {'--teacher': teacher, '--teacher-ckpt': ckpt, '--method': methods}
    missing = [name for name, value in given.items() if not value]
    if len(missing) == len(given) and not init_student:
        return cfg
    if is_distillation(cfg):
        raise ValueError(
            f'{args.config} is a distillation already: give the plain config of its student, or change the teacher '
            'and the methods with --cfg-options model.teacher.ckpt=... model.teacher.cfg=...'
        )
    if missing:
        raise ValueError(
            f'to distil a plain config, also give {" and ".join(missing)}: '
            f'CONFIG --teacher CONFIG --teacher-ckpt FILE --method {"|".join(method_names())}'
        )
    return compose(cfg, teacher, ckpt, methods, init_student or '')


def compose(student: Config, teacher: str, ckpt: str, methods: Sequence[str], init_student: str = '') -> Config:
    """Wraps the model of a plain config into a distiller; data, schedule and hooks stay the student's.

    Args:
        student: A plain mmdet or mmpretrain config. Not changed.
        teacher: Config of the teacher, a file or a name such as ``mmdet::...``.
        ckpt: Checkpoint of the teacher.
        methods: Names of registered methods, in any spelling: ``era``, ``fitnets``, ``residual_kd``.
        init_student: Argument of :class:`mmrkd.models.Distiller`.

    Returns:
        A config named ``<methods>_<teacher>_<student>.py``, which the runner writes into its work dir.

    Raises:
        ValueError: There is no such method, or the teacher's config is that of a distillation.
    """
    if is_distillation(read_config_file(teacher)):
        raise ValueError(
            f'the teacher {teacher} is a distillation itself: give the plain config of its student, which '
            '`mmrkd export` (tools/export_student.py) writes'
        )
    model = ConfigDict(
        type='mmrkd.Distiller',
        student=student.model,
        teacher=dict(cfg=_absolute(teacher), ckpt=_absolute(ckpt)),
        methods=[dict(type=f'mmrkd.{find_method(name)}') for name in methods],
    )
    if init_student:
        model.init_student = init_student
    stems = [_stem(teacher), _stem(student.filename or 'student')]
    name = '_'.join(['-'.join(method.lower() for method in methods), *stems])
    whole = {**written_out(student)._cfg_dict, 'model': written_out(Config(dict(model=model))).model}
    return Config(whole, cfg_text=student.text or '\n', filename=f'{name}.py')


def method_names() -> list[str]:
    """Returns the registered distillation methods as one writes them on a command line."""
    return sorted(name.lower() for name in _methods())


def find_method(name: str) -> str:
    """Returns the registered name of a method.

    Raises:
        ValueError: There is none of that name; the nearest names are suggested.
    """
    found = {_key(registered): registered for registered in _methods()}
    if _key(name) not in found:
        near = difflib.get_close_matches(_key(name), found, n=1, cutoff=0.4)
        hint = f'Did you mean {near[0]}? ' if near else ''
        raise ValueError(f'there is no method {name!r}. {hint}Methods: {", ".join(method_names())}')
    return found[_key(name)]


def _methods() -> list[str]:
    return [
        name for name, kind in MODELS.module_dict.items() if isinstance(kind, type) and issubclass(kind, DistillMethod)
    ]


def _key(name: str) -> str:
    return re.sub(r'[^a-z0-9]', '', name.split('.')[-1].lower())


def _absolute(path: str) -> str:
    """A kept config finds its teacher from any folder."""
    return path if '::' in path or '://' in path else osp.abspath(osp.expanduser(path))


def _stem(path: str) -> str:
    return osp.splitext(osp.basename(path.split('::')[-1]))[0]
