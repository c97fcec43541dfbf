"""Teachers and methods of a distiller by name, however many there are."""

from torch import nn

from mmrkd.models import Distiller, DistillMethod
from mmrkd.models.teacher import FrozenTeacher


def teachers_of(distiller: Distiller) -> dict[str, FrozenTeacher]:
    """Returns the trained teachers by name; there may be none, if no method needs one."""
    if hasattr(distiller, 'teachers'):
        return dict(distiller.teachers)
    return {} if distiller.teacher is None else {'default': distiller.teacher}


def methods_of(distiller: Distiller) -> dict[str, DistillMethod]:
    """Returns the methods by name, in the order of the config."""
    if isinstance(distiller.methods, nn.ModuleDict):
        return dict(distiller.methods.items())
    return dict(zip(distiller.names, distiller.methods))


def role_of(teacher: str) -> str:
    """Returns what to call a teacher of a name: the only one has no need of it."""
    return 'teacher' if teacher == 'default' else f'teacher {teacher}'
