"""What a distiller is built of: its teachers, and what must hold between its parts."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from mmrkd.models.methods import DEFAULT, MethodDict
from mmrkd.models.methods.arguments import check_arguments
from mmrkd.models.teacher import FrozenTeacher


def build_teachers(teacher: Any, others: Mapping[str, Any]) -> dict[str, FrozenTeacher]:
    """Returns the teachers by name.

    Args:
        teacher: The default one, a config or a teacher; ``None`` without.
        others: Name -> teacher beside it.

    Raises:
        TypeError: An argument in a config is of another kind, or there is none of that name.
        ValueError: There are two default ones, or one cannot be built.
    """
    if teacher is not None and DEFAULT in others:
        raise ValueError('teacher= is short for teachers=dict(default=...): give one of them')
    given = {**({} if teacher is None else {DEFAULT: teacher}), **others}
    for cfg in [cfg for cfg in given.values() if not isinstance(cfg, FrozenTeacher)]:
        check_arguments(FrozenTeacher, cfg, shared=())
    return {name: t if isinstance(t, FrozenTeacher) else FrozenTeacher(**t) for name, t in given.items()}


def require_own_names(student: nn.Module) -> None:
    """Raises ValueError if a distiller would hide parts of its student that hooks look for by name."""
    taken = [name for name in ('student', 'teacher') if isinstance(getattr(student, name, None), nn.Module)]
    if taken:
        raise ValueError(
            f'a {type(student).__name__} cannot be a student: its own parts {taken} would be hidden by those of the '
            'distiller, and it wants batches of several kinds. Distil the detector inside of it (student=cfg.detector) '
            'with labels alone.'
        )


def require_one_task_weight(methods: MethodDict) -> None:
    """Raises ValueError if several methods have a weight for the student's own losses."""
    given = {name: method.task_weight for name, method in methods.items() if method.task_weight != 1}
    if len(given) > 1:
        raise ValueError(
            f"several methods have a weight for the student's own losses: {given}. They would multiply: give it "
            '(w_task) to one of them.'
        )
