"""The few typed things that flow between the distiller, the adapters and the methods."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Optional

import torch.nn.functional as F
from torch import Tensor

Features = tuple[Tensor, ...]
RESIZE_MODES = ('nearest', 'bilinear', 'area')


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
        resize: How maps are interpolated where the two grids differ; ``None`` if that is not allowed.
    """

    student_levels: tuple[Level, ...]
    teacher_levels: tuple[Level, ...]
    pairs: tuple[tuple[int, int], ...]
    resize: Optional[str] = None

    @property
    def student_channels(self) -> list[int]:
        """Channels of the student's matched levels."""
        return [self.student_levels[s].channels for s, _ in self.pairs]

    @property
    def teacher_channels(self) -> list[int]:
        """Channels of the teacher's matched levels."""
        return [self.teacher_levels[t].channels for _, t in self.pairs]

    @property
    def vectors(self) -> bool:
        """Whether the matched features are vectors ``(N, C)`` and not maps ``(N, C, H, W)``."""
        return self.student_levels[self.pairs[0][0]].stride is None

    @property
    def same_strides(self) -> bool:
        """Whether each pair has one stride, so that an estimate lies on the teacher's grid without any resizing."""
        return all(self.student_levels[s].stride == self.teacher_levels[t].stride for s, t in self.pairs)

    @property
    def covers_teacher(self) -> bool:
        """Whether every level that the teacher's head reads has a counterpart in the student."""
        return len(self.pairs) == len(self.teacher_levels)

    def restricted(self, levels: Optional[Sequence[int]]) -> 'LevelMatch':
        """Returns the match of some of the pairs alone; ``None``: of all.

        Args:
            levels: Places among the matched levels, 0 the finest; negative ones count from the end.

        Raises:
            ValueError: There is no such level, or none is left.
        """
        if levels is None:
            return self
        count = len(self.pairs)
        chosen = sorted({index % count for index in levels if -count <= index < count})
        if not chosen or len(chosen) != len(list(levels)):
            raise ValueError(
                f'levels: expected different places among the {count} matched levels, found {list(levels)}'
            )
        return replace(self, pairs=tuple(self.pairs[index] for index in chosen))


class NoCommonStride(ValueError):
    """Student and teacher have no feature level that can be compared."""


def match_levels(student: Sequence[Level], teacher: Sequence[Level], resize: Optional[str] = None) -> LevelMatch:
    """Matches the levels of two models by stride; several of one stride in their order.

    Args:
        student: Levels of the student.
        teacher: Levels of the teacher.
        resize: ``'nearest'``, ``'bilinear'`` or ``'area'`` allows maps to be interpolated: models without any stride in
            common are then matched by the nearest one. Defaults to None, which allows nothing.

    Raises:
        NoCommonStride: The models have no stride in common and ``resize`` is not given.
        ValueError: ``resize`` is unknown.
    """
    if resize not in (None, *RESIZE_MODES):
        raise ValueError(f'resize must be None or one of {RESIZE_MODES}, found {resize!r}')
    free = list(enumerate(teacher))
    pairs = []
    for index, level in enumerate(student):
        same = next((item for item in free if item[1].stride == level.stride), None)
        if same is not None:
            free.remove(same)
            pairs.append((index, same[0]))
    if not pairs and resize is not None:
        pairs = _nearest(student, teacher)
    if not pairs:
        raise NoCommonStride(
            'student and teacher have no feature level with the same stride: the student has '
            f'[{"; ".join(map(str, student))}], the teacher has [{"; ".join(map(str, teacher))}]. '
            'Choose necks whose levels overlap, change start_level / out_indices of one of them, '
            "or allow maps to be interpolated: resize='bilinear' of the distiller."
        )
    return LevelMatch(tuple(student), tuple(teacher), tuple(pairs), resize)


def _nearest(student: Sequence[Level], teacher: Sequence[Level]) -> list[tuple[int, int]]:
    """Pairs maps of unequal stride, the nearest (in octaves) first, each of them once."""
    distances = sorted(
        (abs(math.log2(s.stride / t.stride)), i, j)
        for i, s in enumerate(student)
        for j, t in enumerate(teacher)
        if s.stride is not None and t.stride is not None
    )
    pairs: dict[int, int] = {}
    for _, i, j in distances:
        if i not in pairs and j not in pairs.values():
            pairs[i] = j
    return sorted(pairs.items())


def resized(feature: Tensor, like: Tensor, mode: Optional[str]) -> Tensor:
    """Interpolates a map ``(N, C, H, W)`` to the grid of another one; on the same grid it is returned as it is.

    Raises:
        ValueError: The grids differ and ``mode`` is ``None``.
    """
    if feature.shape[2:] == like.shape[2:]:
        return feature
    if mode is None:
        raise ValueError(
            f'two matched maps have {tuple(feature.shape[2:])} and {tuple(like.shape[2:])} cells, and nothing is '
            "resized unless it is asked for: give the distiller resize='bilinear'"
        )
    return F.interpolate(feature, like.shape[2:], mode=mode, align_corners=False if mode == 'bilinear' else None)


def on_student_grid(teacher: Tensor, student: Tensor, same_stride: bool = True, resize: Optional[str] = None) -> Tensor:
    """Brings a map of the teacher to the grid of the student's.

    Where the strides agree only the teacher's wider padding can add cells: the grids share their upper left corner, and
    what lies to the right of and below the student's is cut off. Anything else is interpolated, if that is allowed.

    Args:
        teacher: ``(N, C_t, H', W')``; vectors ``(N, C_t)`` are returned as they are.
        student: ``(N, C_s, H, W)``.
        same_stride: Whether a cell stands for as many pixels in both.
        resize: See :func:`resized`.

    Returns:
        ``(N, C_t, H, W)``.

    Raises:
        ValueError: The grids differ by more than padding, and ``resize`` is ``None``.
    """
    if teacher.dim() == 2 or teacher.shape[2:] == student.shape[2:]:
        return teacher
    if same_stride and all(t >= s for t, s in zip(teacher.shape[2:], student.shape[2:])):
        return teacher[..., : student.shape[-2], : student.shape[-1]]
    return resized(teacher, student, resize)


class NamedViews(Mapping):
    """Views of the same images by name, each computed when it is first asked for.

    Args:
        **compute: A function for each name; called at most once.
    """

    def __init__(self, **compute: Callable[[], Any]) -> None:
        self._compute, self._known = compute, {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._known:
            self._known[name] = self._compute[name]()
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._compute)

    def __len__(self) -> int:
        return len(self._compute)


@dataclass
class _View:
    """What a method sees of one model in one step.

    Attributes:
        inputs: Images as the model sees them, ``(N, 3, H, W)``.
        feats: Matched features on the student's grid, finest first.
        all_feats: All features as the model's head takes them.
        compute_outputs: Gives the outputs of the dense or classification head; called at most once.
        taps: Outputs of the modules that methods asked for, by module name.
        views: All views of the same images by their names, this one included, where a method reads several
            (:attr:`DistillMethod.views`).
        once: What the head assigned to this batch, for passes that would assign the same once more
            (:class:`mmrkd.adapters.assigned.AssignedOnce`).
    """

    inputs: Tensor
    feats: Features
    all_feats: Any = None
    compute_outputs: Callable[[], Any] = lambda: None
    taps: dict[str, Any] = field(default_factory=dict)
    views: Mapping = field(default_factory=dict)
    once: Any = None
    _outputs: Any = field(default=None, repr=False)

    @property
    def outputs(self) -> Any:
        """Outputs of the dense or classification head, in the form that training sees; ``None`` without such a head."""
        if self._outputs is None:
            self._outputs = self.compute_outputs()
        return self._outputs


@dataclass
class StudentView(_View):
    """What a method sees of the student in one step. Gradients flow.

    :attr:`outputs` are what the student's head returned during its own loss; further views compute them when asked.

    Attributes:
        assigned: What the student's head assigned to its predictions on the way
            (:class:`mmrkd.adapters.assigned.AssignedTargets`); ``None`` if no method reads it
            (:attr:`DistillMethod.reads_targets`), if the head assigns nothing, and for further views.
        regions: What its second stage sampled and said of it (:class:`mmrkd.adapters.regions.Regions`); ``None`` if no
            method reads it (:attr:`DistillMethod.reads_regions`) and for further views.
        calls: Outputs of every call of the modules that methods asked for (:attr:`DistillMethod.student_calls`), by
            module name.
    """

    assigned: Any = None
    regions: Any = None
    calls: dict[str, list] = field(default_factory=dict)


@dataclass
class TeacherView(_View):
    """What a method sees of one teacher in one step. Everything is detached.

    :attr:`feats` are cropped to the student's grid, and interpolated where that is allowed. The head runs when
    :attr:`outputs` are first asked for, and so do auxiliary heads.

    Attributes:
        region_logits: Scores regions ``(R, 5)`` of the student: ``(R, K + 1)``, of a two-stage teacher.
        compute_auxiliary: Gives the outputs of its auxiliary heads; called at most once.
    """

    region_logits: Optional[Callable[[Tensor], Tensor]] = None
    compute_auxiliary: Callable[[], list] = list
    _auxiliary: Optional[list] = field(default=None, repr=False)

    @property
    def auxiliary_outputs(self) -> list:
        """Outputs of the heads that a segmentor has in training alone; none of other models."""
        if self._auxiliary is None:
            self._auxiliary = self.compute_auxiliary()
        return self._auxiliary
