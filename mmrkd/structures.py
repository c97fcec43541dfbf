"""The few typed things that flow between the distiller, the adapters and the methods."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from torch import Tensor

Features = tuple[Tensor, ...]


@dataclass(frozen=True)
class Level:
    """One distillable feature of a model.

    Attributes:
        channels: Number of channels.
        stride: Input pixels for each feature cell; ``None`` for a pooled ``(N, C)`` feature.
    """

    channels: int
    stride: Optional[int]

    def __str__(self) -> str:
        return (
            f'pooled, {self.channels} channels' if self.stride is None else f'stride {self.stride}, {self.channels}ch'
        )


@dataclass(frozen=True)
class LevelMatch:
    """Which level of the student is compared with which level of the teacher.

    Attributes:
        student_levels: All levels of the student, finest first.
        teacher_levels: All levels of the teacher, finest first.
        pairs: ``(student index, teacher index)`` of each match.
    """

    student_levels: tuple[Level, ...]
    teacher_levels: tuple[Level, ...]
    pairs: tuple[tuple[int, int], ...]

    @property
    def student_channels(self) -> list[int]:
        """Channels of the student's matched levels."""
        return [self.student_levels[s].channels for s, _ in self.pairs]

    @property
    def teacher_channels(self) -> list[int]:
        """Channels of the teacher's matched levels."""
        return [self.teacher_levels[t].channels for _, t in self.pairs]

    @property
    def pooled(self) -> bool:
        """Whether the matched features are vectors ``(N, C)`` and not maps ``(N, C, H, W)``."""
        return self.student_levels[self.pairs[0][0]].stride is None

    @property
    def covers_teacher(self) -> bool:
        """Whether every level that the teacher's head reads has a counterpart in the student."""
        return len(self.pairs) == len(self.teacher_levels)


class NoCommonStride(ValueError):
    """Student and teacher have no feature level that can be compared."""


def match_levels(student: Sequence[Level], teacher: Sequence[Level]) -> LevelMatch:
    """Matches the levels of two models by stride.

    Raises:
        NoCommonStride: The models have no stride in common.
    """
    free = dict(reversed([(level.stride, index) for index, level in enumerate(teacher)]))
    pairs = []
    for index, level in enumerate(student):
        if level.stride in free:
            pairs.append((index, free.pop(level.stride)))
    if not pairs:
        raise NoCommonStride(
            'student and teacher have no feature level with the same stride: the student has '
            f'[{"; ".join(map(str, student))}], the teacher has [{"; ".join(map(str, teacher))}]. '
            'Choose necks whose levels overlap, or change start_level / out_indices of one of them.'
        )
    return LevelMatch(tuple(student), tuple(teacher), tuple(pairs))


@dataclass
class StudentView:
    """What a method sees of the student in one step. Gradients flow.

    Attributes:
        inputs: Images as the student sees them, ``(N, 3, H, W)``.
        feats: Matched features, finest first.
        outputs: What the student's dense or classification head returned during its own loss; ``None`` if it has none.
        taps: Outputs of the modules that methods asked for (:attr:`DistillMethod.student_taps`), by module name.
    """

    inputs: Tensor
    feats: Features
    outputs: Any = None
    taps: dict[str, Any] = field(default_factory=dict)


@dataclass
class TeacherView:
    """What a method sees of the teacher in one step. Everything is detached.

    Attributes:
        inputs: Images as the teacher sees them, ``(N, 3, H, W)``.
        feats: Matched features, cropped to the student's grid, finest first.
        all_feats: All features as the teacher's head takes them.
        compute_outputs: Runs the teacher's head on ``all_feats``; called at most once a step.
        taps: Outputs of the modules that methods asked for (:attr:`DistillMethod.teacher_taps`), by module name.
    """

    inputs: Tensor
    feats: Features
    all_feats: Any
    compute_outputs: Callable[[], Any]
    taps: dict[str, Any] = field(default_factory=dict)
    _outputs: Any = field(default=None, repr=False)

    @property
    def outputs(self) -> Any:
        """Head outputs of the teacher, computed when first asked for."""
        if self._outputs is None:
            self._outputs = self.compute_outputs()
        return self._outputs
