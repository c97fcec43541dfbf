"""What a distillation method is."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Optional

from mmengine.model import BaseModule
from torch import Tensor

from mmrkd.adapters import ModelAdapter
from mmrkd.models.teacher import FrozenTeacher
from mmrkd.structures import LevelMatch, StudentView, TeacherView


@dataclass
class Pair:
    """The two models that a method stands between, as found when the distiller is built.

    Attributes:
        student: Adapter of the student.
        teacher: The frozen teacher.
        match: Levels matched by stride.
        layout_gap: ``None`` if the outputs of both heads can be compared one by one, otherwise what differs.
    """

    student: ModelAdapter
    teacher: FrozenTeacher
    match: LevelMatch
    layout_gap: Optional[str]

    def require_same_classes(self, what: str) -> None:
        """Raises ValueError if the two heads do not tell the same number of classes apart."""
        student, teacher = self.student.num_classes, self.teacher.adapter.num_classes
        if student != teacher:
            raise ValueError(
                f'{what} needs a teacher with the classes of the student: the student has {student} classes, the '
                f'teacher {teacher}. Train the teacher on the same classes, or use a method on features alone '
                f'(FitNets, or ERA with twi_on="none" and w_kd=0).'
            )


class DistillMethod(BaseModule):
    """Base class: a method turns the views of student and teacher into named losses.

    A method owns what it trains (projections, branches); it never owns student or teacher. What it builds depends on
    both, so it is built in two steps: arguments in ``__init__``, modules in :meth:`setup`.

    Attributes:
        task_weight: Factor on the student's own losses.
        student_taps: Names of modules of the student whose outputs the method wants in :attr:`StudentView.taps`.
        teacher_taps: The same for the teacher, modules below its head; they run in the teacher's one feature pass.
        variants: Names of the predictions that the method adds to ``student`` and ``teacher``.
        refused: Variants that this pair of models cannot have -> why.
    """

    task_weight: float = 1.0
    student_taps: tuple[str, ...] = ()
    teacher_taps: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    refused: Mapping[str, str] = MappingProxyType({})

    @property
    def active(self) -> bool:
        """Whether any term has a weight. An inactive method is not run, and neither is the teacher for it."""
        return True

    def setup(self, pair: Pair) -> None:
        """Builds modules and checks that student and teacher fit. Called once, by the distiller.

        Raises:
            ValueError: They do not fit; the message says what was expected and found.
        """

    @abstractmethod
    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns weighted losses; a name must contain ``loss`` to be part of the total."""

    def derive_student(self, variant: str, student: dict) -> Optional[dict]:
        """Returns the config of a variant that is the student with other arguments, and some of its weights.

        Args:
            variant: One of :attr:`variants`.
            student: Model config of the student. Not changed.

        Returns:
            The config; ``None`` if the variant is not of that kind.
        """
        return None

    def predict(self, variant: str, feats: tuple[Tensor, ...], all_feats: tuple, inputs: Tensor, samples: Sequence):
        """Predicts as one of :attr:`variants`.

        Args:
            variant: One of :attr:`variants`.
            feats: Matched features of the student.
            all_feats: All features of the student, as its head takes them.
            inputs: The student's images ``(N, 3, H, W)``.
            samples: Data samples.
        """
        raise ValueError(f'{type(self).__name__} has the variants {self.variants}, but not {variant!r}')
