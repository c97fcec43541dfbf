"""What a distillation method is."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Optional

from mmengine.model import BaseModule
from torch import Tensor, nn

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

    def require_same_layout(self, what: str) -> None:
        """Raises ValueError if the outputs of the two heads cannot be compared one by one, and says what differs."""
        self.require_same_classes(what)
        if self.layout_gap is not None:
            raise ValueError(
                f'{what} compares the outputs of the heads one by one, but they do not line up: {self.layout_gap}. '
                'Give both models the same classes, strides, priors and box coder, or use a method on features.'
            )

    def require_same_pixels(self, what: str) -> None:
        """Raises ValueError if the teacher sees resized images, so that a cell of its maps lies elsewhere."""
        if self.teacher.input_size is not None:
            raise ValueError(
                f'{what} compares maps cell by cell, but the teacher has an input_size of its own '
                f'{tuple(self.teacher.input_size)}, so that its cells lie elsewhere. Take a teacher without one, or '
                'a method on pooled features or logits.'
            )

    def require_ground_truth(self, what: str) -> None:
        """Raises ValueError if a copy of the teacher could not compute its own losses on the student's batches."""
        if self.teacher.adapter.with_mask and not self.student.with_mask:
            raise ValueError(
                f"{what} trains a copy of the teacher with the teacher's own losses, which need masks, and the student "
                'is trained without. Take a teacher without a mask branch, or a student with one.'
            )

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
        scale: Factor on the method's own losses, which a schedule moves; at 0 the method is not run.
        student_taps: Names of modules of the student whose outputs the method wants in :attr:`StudentView.taps`.
        teacher_taps: The same for the teacher, modules below its head; they run in the teacher's one feature pass.
        needs_teacher: Whether the method reads the teacher's view; if no method does, the teacher is not run.
        variants: Names of the predictions that the method adds to ``student`` and ``teacher``.
        refused: Variants that this pair of models cannot have -> why.
    """

    task_weight: float = 1.0
    scale: float = 1.0
    student_taps: tuple[str, ...] = ()
    teacher_taps: tuple[str, ...] = ()
    needs_teacher: bool = True
    variants: tuple[str, ...] = ()
    refused: Mapping[str, str] = MappingProxyType({})

    @property
    def active(self) -> bool:
        """Whether any term has a weight. An inactive method is not run, and neither is the teacher for it."""
        return True

    def idle_parameters(self) -> list[nn.Parameter]:
        """Returns the trained parameters that this step gives no gradient to: all of them while the method is off.

        DDP waits for the gradient of every parameter that it began with, so each of these is given one of 0.
        """
        return [] if self.active and self.scale else [p for p in self.parameters() if p.requires_grad]

    def setup(self, pair: Pair) -> None:
        """Builds modules and checks that student and teacher fit. Called once, by the distiller.

        Raises:
            ValueError: They do not fit; the message says what was expected and found.
        """

    @abstractmethod
    def losses(self, student: StudentView, teacher: TeacherView, samples: Sequence) -> dict[str, Tensor]:
        """Returns weighted losses; a name must contain ``loss`` to be part of the total.

        ``teacher`` is ``None`` where no method of the distiller needs it (:attr:`needs_teacher`).
        """

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
