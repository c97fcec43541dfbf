"""What a distiller is built of: its teachers, and what must hold between its parts."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from mmrkd.models.methods import DEFAULT, MethodDict
from mmrkd.models.methods.arguments import check_arguments
from mmrkd.models.teacher import FrozenTeacher


def build_teachers(teacher: Any, others: Mapping[str, Any], at: str = 'backbone') -> dict[str, FrozenTeacher]:
    """Returns the teachers by name.

    Args:
        teacher: The default one, a config or a teacher; ``None`` without.
        others: Name -> teacher beside it.
        at: Where the features of all of them lie, see :meth:`mmrkd.adapters.ModelAdapter.placed_at`.

    Raises:
        TypeError: An argument in a config is of another kind, or there is none of that name.
        ValueError: There are two default ones, one cannot be built, or one that is built reads features elsewhere.
    """
    if teacher is not None and DEFAULT in others:
        raise ValueError('teacher= is short for teachers=dict(default=...): give one of them')
    given = {**({} if teacher is None else {DEFAULT: teacher}), **others}
    for cfg in [cfg for cfg in given.values() if not isinstance(cfg, FrozenTeacher)]:
        check_arguments(FrozenTeacher, cfg, shared=())
    built = {n: t if isinstance(t, FrozenTeacher) else FrozenTeacher(**{'at': at, **t}) for n, t in given.items()}
    for name, other in built.items():
        if other.adapter.at != at:
            raise ValueError(
                f'the features of student and teacher lie at one place: the student has them at={at!r}, the teacher '
                f'{name!r} at={other.adapter.at!r}. Say it once, to the distiller.'
            )
    return built


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
