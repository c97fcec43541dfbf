"""What a distillation method is."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Optional, Union

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmrkd.models.balance import Balance, BalanceRequest
from mmrkd.models.pair import Pair
from mmrkd.models.variants import Variant
from mmrkd.structures import Features, StudentView, TeacherView


@dataclass(frozen=True)
class Phase:
    """A part of the training in which only some modules learn.

    Attributes:
        name: As the log and the check call it.
        distils: Whether the method's own terms are computed.
        task_weight: Factor on the student's own losses.
    """

    name: str
    distils: bool = True
    task_weight: float = 1.0


class Progress(NamedTuple):
    """How far a training is.

    Attributes:
        epochs: Finished epochs, with fractions.
        share: Finished share of the whole, in [0, 1].
        iterations: Finished iterations.
        max_iterations: Those of the whole training.
    """

    epochs: float
    share: float
    iterations: int = 0
    max_iterations: int = 1


class DistillMethod(BaseModule):
    """Base class: a method turns the views of student and teacher into named losses.

    A method owns what it trains (projections, branches); it never owns student or teacher. What it builds depends on
    both, so it is built in two steps: arguments in ``__init__``, modules in :meth:`setup`.

    What a method *declares* here is all that the distiller, the hooks, the pre-flight check and the export know of it:

    .. code:: text

        weights, active ── whether it is run        phases, scale ── when and how strongly
        taps, views, teacher ── what it reads       prediction_variants() ── what it can predict as
                                                    measurements(), pictures() ── what it has reached

    Four keys of a method's config are the distiller's, whatever the constructor takes: ``name`` (of its state and in
    the log, defaults to the class name in lower case), ``teacher`` (the name of the one it listens to, or a list: one
    copy of the method for each; ``None``: none), ``balance`` (the share of the gradient that its terms get together,
    see :class:`mmrkd.models.balance.Balance`) and ``type``. An argument that is one of :attr:`weights` may be
    ``'auto'``; the constructor gets a number in its place.

    Attributes:
        weights: Attribute that holds a weight -> patterns (:mod:`fnmatch`) of the loss terms that it multiplies.
        task_weight: Factor on the student's own losses; reached as :attr:`factor` reaches 1.
        student_taps: Names of modules of the student whose outputs the method wants in :attr:`StudentView.taps`.
        student_calls: Names of modules of the student of which it wants every call, in :attr:`StudentView.calls`: a
            dense head calls its convolutions once for each level.
        teacher_taps: As ``student_taps`` for the teacher, modules below its head; they run in its one feature pass.
        reads_targets: Whether the method reads :attr:`StudentView.assigned`.
        reads_regions: Whether the method reads :attr:`StudentView.regions`; may be set in :meth:`setup`.
        needs_teacher: Whether the method reads the teacher's view. If no method does, no teacher is run, and there need
            not be one.
        compares_classes: Whether the classes of teacher and data must agree: it reads more than features.
        views: Names of further views of the images that it reads, see :class:`mmrkd.models.ViewsPreprocessor`.
        made_views: Names of further views that it makes itself of the finished batch, see :meth:`make_views`.
        joint: Whether the student sees all views of this method in one pass, as one BatchNorm batch; otherwise each
            has a pass and a BatchNorm batch of its own, and running statistics move once for each. A teacher is in
            evaluation mode and does not care.
        statistics: BatchNorm statistics under which the method sees its teacher, see :meth:`FrozenTeacher.extract`.
        phases: In their order; empty if the training has none. :class:`mmrkd.engine.hooks.PhaseHook` enters them.
        phase_epochs: Epochs after which the second, third, ... phase begins.
        needed_hooks: Names of hooks without which it would silently train something else.
        progress: How far the training is, for a method with a ramp of its own. Kept by
            :class:`mmrkd.engine.hooks.PhaseHook`; ``None`` where there is none.
        scale: Factor on the method's own losses, which a schedule moves; at 0 the method is not run.
        on_duty: ``False`` while another teacher of a sequence has its turn.
        refused: Variants that this pair of models cannot have -> why.
        name: Name of this method, given by the distiller.
        teacher: Name of its teacher, given by the distiller; ``None`` if it has none.
        pair: The models that it stands between, given by the distiller.
        arguments: Those that its config gave, as text.
        balance_request: What its config asks of :attr:`balance`; ``None``: nothing.
        balance: Finds factors for the weights, part of the method's state; ``None`` if they are as they are.
    """

    weights: Mapping[str, Union[str, Sequence[str]]] = MappingProxyType({})
    task_weight: float = 1.0
    student_taps: tuple[str, ...] = ()
    student_calls: tuple[str, ...] = ()
    teacher_taps: tuple[str, ...] = ()
    reads_targets: bool = False
    reads_regions: bool = False
    needs_teacher: bool = True
    compares_classes: bool = True
    views: tuple[str, ...] = ()
    made_views: tuple[str, ...] = ()
    joint: bool = False
    phases: tuple[Phase, ...] = ()
    phase_epochs: tuple[int, ...] = ()
    needed_hooks: tuple[str, ...] = ()
    progress: Optional[Progress] = None
    scale: float = 1.0
    on_duty: bool = True
    refused: Mapping[str, str] = MappingProxyType({})
    name: str = ''
    teacher: Optional[str] = 'default'
    pair: Optional[Pair] = None
    arguments: str = ''
    balance_request: Optional[BalanceRequest] = None
    phase: Optional[str] = None
    _learning: Optional[frozenset] = None

    def __init__(self) -> None:
        super().__init__()
        self.statistics: Optional[nn.Module] = None  # on the instance: a class attribute would hide a submodule
        self.balance: Optional[Balance] = None

    @property
    def active(self) -> bool:
        """Whether any term has a weight now. An inactive method is not run, and neither is the teacher for it."""
        phase = self._present_phase()
        weighted = not self.weights or any(getattr(self, weight) for weight in self.weights)
        return weighted and (phase is None or phase.distils)

    @property
    def factor(self) -> float:
        """Factor on the method's own losses in this step; at 0 it is not run."""
        return self.scale if self.on_duty else 0.0

    @property
    def task_factor(self) -> float:
        """Factor on the student's own losses in this step: that of the phase, or on the way from 1 to task_weight."""
        phase = self._present_phase()
        return 1 + self.factor * (self.task_weight - 1) if phase is None else phase.task_weight

    @property
    def full_task_weight(self) -> float:
        """The same where :attr:`factor` is 1, whatever it is now."""
        phase = self._present_phase()
        return self.task_weight if phase is None else phase.task_weight

    @property
    def num_views(self) -> int:
        """How many views of an image it reads: as many passes of student and teacher does a step cost."""
        return 1 + len(self.views) + len(self.made_views)

    def idle_parameters(self) -> list[nn.Parameter]:
        """Returns the trained parameters that this step gives no gradient to: all of them while the method is off.

        DDP waits for the gradient of every parameter that it began with, so each of these is given one of 0.
        """
        return [] if self.active and self.factor else [p for p in self.parameters() if p.requires_grad]

    def setup(self, pair: Pair) -> None:
        """Builds modules and checks that student and teacher fit. Called once, by the distiller.

        Raises:
            ValueError: They do not fit; the message says what was expected and found.
        """

    def make_views(self, inputs: Tensor) -> dict[str, Tensor]:
        """Returns views that the method makes of the finished batch, one for each of :attr:`made_views`.

        Called once in each step in which it is run. What it draws it must draw from torch's generators, whose state is
        saved: a resumed run is exact.

        Args:
            inputs: Images as the student sees them, ``(N, 3, H, W)``. Not to be changed.

        Returns:
            Name -> images of the same shape.
        """
        return {}

    def around_task(self, teacher: Optional[TeacherView]) -> AbstractContextManager[Any]:
        """Returns a context in which the student's own losses are computed; nothing happens in it by default.

        For methods that change what the student's own losses are (RDD weighs their pixels). The teacher's features are
        there already, its heads run if they are asked. Called once in each step in which the method is run.

        Args:
            teacher: As :meth:`losses` gets it.
        """
        return nullcontext()

    @abstractmethod
    def losses(self, student: StudentView, teacher: Optional[TeacherView], samples: Sequence) -> dict[str, Tensor]:
        """Returns weighted losses; a name must contain ``loss`` to be part of the total.

        ``teacher`` is ``None`` for a method that does not need it (:attr:`needs_teacher`).
        """

    def measurements(self, student: StudentView, teacher: Optional[TeacherView], samples: Sequence) -> dict[str, float]:
        """Returns what the method knows of its own success, for :class:`mmrkd.diagnosis.Facts`; nothing by default.

        ``residual_explained``: the share of the variance of what separates teacher and student that its modules
        explain. Called in a few steps of a training, without gradients and on a copy of the distiller.
        """
        return {}

    def pictures(self, student: StudentView, teacher: Optional[TeacherView]) -> dict[str, Features]:
        """Returns maps worth looking at, title -> levels ``(N, C, H, W)``; nothing by default.

        Called after validations, without gradients and on a copy of the distiller; the views have no taps.
        """
        return {}

    def prediction_variants(self) -> list[Variant]:
        """Returns what the distiller can predict as because of this method. Called after :meth:`setup`."""
        return []

    def phase_of(self, epoch: int) -> str:
        """Returns the name of the phase after so many finished epochs."""
        return self.phases[sum(epoch >= start for start in self.phase_epochs)].name

    def frozen_modules(self) -> list[nn.Module]:
        """Returns the modules of student and method that do not learn in the present phase; their own parameters count.

        For methods with :attr:`phases`.
        """
        return []

    def enter_phase(self, phase: str) -> None:
        """Lets learn what learns in a phase, as far as it could learn before the first one, and nothing else."""
        owners = (('student', self.pair.student.model), ('method', self))
        named = [(f'{owner}.{name}', p) for owner, module in owners for name, p in module.named_parameters()]
        if self._learning is None:
            self._learning = frozenset(name for name, p in named if p.requires_grad)
        self.phase = phase
        frozen = {id(p) for module in self.frozen_modules() for p in module.parameters(recurse=False)}
        for name, parameter in named:
            parameter.requires_grad_(name in self._learning and id(parameter) not in frozen)
            if not parameter.requires_grad:
                parameter.grad = None  # what accumulated in the phase before must not be a step in this one

    def hold_frozen(self) -> None:
        """Puts the layers that the phase freezes into evaluation mode, so that no buffer of theirs moves."""
        for module in self.frozen_modules():
            if next(module.children(), None) is None:  # a whole detector in evaluation mode might refuse to train
                module.training = False

    def _present_phase(self) -> Optional[Phase]:
        return next((phase for phase in self.phases if phase.name == self.phase), None)
