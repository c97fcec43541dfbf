"""Checks of what a loss is given."""

from torch import Tensor


def check_maps(student: Tensor, teacher: Tensor) -> None:
    """Raises ValueError unless both are maps ``(N, C, H, W)`` of one shape."""
    if student.shape != teacher.shape or student.dim() != 4:
        raise ValueError(
            f'two maps (N, C, H, W) of one shape expected: the student has {tuple(student.shape)}, '
            f'the teacher {tuple(teacher.shape)}'
        )
