"""One training step: every pass of student and teachers that the active methods read, each run once."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Optional

from torch import Tensor

from mmrkd.adapters import ModelAdapter
from mmrkd.adapters.assigned import AssignedOnce, TargetCapture
from mmrkd.models.methods import DistillMethod
from mmrkd.models.pair import TeacherPass
from mmrkd.models.views_preprocessor import name_views
from mmrkd.structures import NamedViews, StudentView, TeacherView


class Step:
    """Runs the student with its own losses and hands each method its views, inside one ``with`` block.

    The teachers' bodies run before the student's: what they need for a moment is free again when the student begins to
    keep what its backward pass will need. They are in evaluation mode and draw no random numbers, so that nothing but
    the memory depends on the order.

    What it computed is dropped at the end of the block: lazy views and the step refer to each other, and nothing may
    wait for the cyclic garbage collector with a GPU's memory.

    Args:
        adapter: Adapter of the student.
        active: The methods that are run in this step.
        inputs: Images as the student sees them, ``(N, 3, H, W)``.
        samples: Their data samples.
        views: Further views of the images, ``(N, 3, H, W)`` each.
        names: Names of the views, the plain one first.

    Attributes:
        task_losses: The student's own losses.

    Raises:
        ValueError: A method reads a view that the batch does not have.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        active: Sequence[DistillMethod],
        inputs: Tensor,
        samples: Sequence,
        views: Sequence[Tensor] = (),
        names: Sequence[str] = (),
    ) -> None:
        self.adapter, self.active, self.samples = adapter, active, samples
        self.first, self.shown = names[0] if names else '', []
        self.others: dict[str, Tensor] = {}
        for method in active:
            if method.views:
                self.others = name_views(names, views, method.views, method.name)
        self.teacher_passes: dict[tuple, TeacherPass] = {}
        self.teacher_views: dict[tuple, TeacherView] = {}
        for method in active:
            if method.needs_teacher:
                self._teacher_pass(method, None, inputs)
        calls = adapter.tapped(_wanted(active, 'student_calls'), every=True)
        with adapter.tapped(_wanted(active, 'student_taps')) as self.taps, calls as self.calls:
            feats = adapter.extract(inputs)
            self.capture = TargetCapture(reads=any(method.reads_targets for method in active))
            self.task_losses, self.outputs = adapter.task_loss(feats, inputs, samples, self.capture)
        self.student_passes: dict[Optional[str], tuple[Tensor, Any]] = {None: (inputs, feats)}

    def __enter__(self) -> 'Step':
        return self

    def __exit__(self, *_error: Any) -> None:
        for view in self.shown:
            view.views = {}
        self.shown.clear()
        self.student_passes.clear()
        self.teacher_passes.clear()
        self.teacher_views.clear()

    def student_view(self, method: DistillMethod) -> StudentView:
        """Returns what a method sees of the student."""
        inputs, feats = self.student_passes[None]
        outputs = self.outputs
        view = StudentView(inputs, method.pair.student_feats(feats), feats, lambda: outputs, self.taps)
        view.assigned, view.calls, view.once = self.capture.assigned, self.calls, self.capture.once
        return self._with_views(view, partial(self._student_view_of, method))

    def teacher_view(self, method: DistillMethod) -> Optional[TeacherView]:
        """Returns what a method sees of its teacher; ``None`` if it needs none."""
        if not method.needs_teacher:
            return None
        view = self._teacher_view_of(method, None)
        return self._with_views(view, partial(self._teacher_view_of, method))

    def _with_views(self, view: Any, compute: Any) -> Any:
        """Lets a view find all views of the images, itself included, by their names."""
        if self.others:
            others = {name: partial(compute, name) for name in self.others}
            view.views = NamedViews(**{self.first: lambda: view}, **others)
            self.shown.append(view)
        return view

    def _student_view_of(self, method: DistillMethod, name: str) -> StudentView:
        """A further view: a pass of its own, with a BatchNorm batch of its own."""
        if name not in self.student_passes:
            self.student_passes[name] = (self.others[name], self.adapter.extract(self.others[name]))
        inputs, feats = self.student_passes[name]
        return StudentView(
            inputs, method.pair.student_feats(feats), feats, lambda: self.adapter.training_outputs(feats)
        )

    def _teacher_view_of(self, method: DistillMethod, name: Optional[str]) -> TeacherView:
        """One pass for each teacher and view; a method with statistics of its own sees a teacher of its own."""
        key = _key(method, name)
        if key not in self.teacher_views:
            inputs, feats = self.student_passes[None]  # views have one size, so their features have one grid
            done = self._teacher_pass(method, name, inputs if name is None else self.others[name])
            view = method.pair.teacher_view(done, method.pair.student_feats(feats), method.statistics)
            view.once = self.capture.once if name is None and method.pair.assigns_alike else AssignedOnce()
            self.teacher_views[key] = view
        return self.teacher_views[key]

    def _teacher_pass(self, method: DistillMethod, name: Optional[str], inputs: Tensor) -> TeacherPass:
        key = _key(method, name)
        if key not in self.teacher_passes:
            sharing = [m for m in self.active if m.teacher == method.teacher and m.statistics is method.statistics]
            taps = _wanted(sharing, 'teacher_taps') if name is None else ()
            self.teacher_passes[key] = method.pair.teacher_pass(inputs, self.samples, taps, method.statistics)
        return self.teacher_passes[key]


def _key(method: DistillMethod, name: Optional[str]) -> tuple:
    return method.teacher, name, None if method.statistics is None else id(method.statistics)


def _wanted(active: Sequence[DistillMethod], taps: str) -> list[str]:
    return sorted({name for method in active for name in getattr(method, taps)})
