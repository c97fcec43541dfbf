"""One training step: every pass of student and teachers that the active methods read, each run once."""

from collections.abc import Hashable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Optional

import torch
from torch import Tensor

from mmrkd.adapters import ModelAdapter
from mmrkd.adapters.assigned import AssignedOnce, TargetCapture
from mmrkd.adapters.structure import tensors_in, with_tensors
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
        ValueError: A method reads a view that the batch does not have, or views of two sizes are to be seen at once.
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
        self.made = {method.name: method.make_views(inputs) for method in active}
        together = {key: image for m in active if m.joint for key, image in self._images(m).items()}
        self.teacher_passes: dict[tuple, TeacherPass] = {}
        self.teacher_views: dict[tuple, TeacherView] = {}
        for method in active:
            if method.needs_teacher:
                self._teacher_pass(method, None, inputs)
        calls = adapter.tapped(_wanted(active, 'student_calls'), every=True)
        with adapter.tapped(_wanted(active, 'student_taps')) as self.taps, calls as self.calls:
            feats, *others = self._extract([inputs, *together.values()])
            wants_regions = any(method.reads_regions for method in active)
            reads = any(method.reads_targets for method in active)
            self.capture = TargetCapture(reads, wants_regions=wants_regions)
            self.student_passes: dict[Hashable, tuple[Tensor, Any]] = {None: (inputs, feats)}
            self.student_passes.update(zip(together, zip(together.values(), others)))
            with ExitStack() as around:
                for method in active:
                    around.enter_context(method.around_task(self.teacher_view(method)))
                self.task_losses, self.outputs = adapter.task_loss(feats, inputs, samples, self.capture)

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
        view.assigned, view.regions, view.calls = self.capture.assigned, self.capture.regions, self.calls
        view.once = self.capture.once
        return self._with_views(view, method, self._student_view_of)

    def student_features(self, method: DistillMethod) -> list[Any]:
        """Returns what a method may have read of the student.

        These are its features, each as a tuple over the views that were computed, and its taps.
        """
        views = [tensors_in(feats) for _, feats in self.student_passes.values()]
        return [*zip(*views), *tensors_in([self.taps.get(name) for name in method.student_taps])]

    def teacher_view(self, method: DistillMethod) -> Optional[TeacherView]:
        """Returns what a method sees of its teacher; ``None`` if it needs none."""
        if not method.needs_teacher:
            return None
        view = self._teacher_view_of(method, None)
        return self._with_views(view, method, self._teacher_view_of)

    def _images(self, method: DistillMethod) -> dict[Hashable, Tensor]:
        """Returns the further views that a method reads: those of the batch by name, its own ones by both names."""
        made = {(method.name, name): image for name, image in self.made[method.name].items()}
        return {**{name: self.others[name] for name in method.views}, **made}

    def _extract(self, images: Sequence[Tensor]) -> list[Any]:
        """Runs the student once on several batches, as one BatchNorm batch; returns the features of each.

        What was tapped on the way is cut down to the first batch: no other method knows of the others.
        """
        if len(images) == 1:
            return [self.adapter.extract(images[0])]
        if len({image.shape for image in images}) > 1:
            sizes = [tuple(image.shape) for image in images]
            raise ValueError(f'views that the student sees in one pass (joint) need one size, found {sizes}')
        feats = self.adapter.extract(torch.cat(list(images)))
        for records in (self.taps, self.calls):
            records.update({name: _part(record, 0, len(images)) for name, record in records.items()})
        return [_part(feats, index, len(images)) for index in range(len(images))]

    def _with_views(self, view: Any, method: DistillMethod, compute: Any) -> Any:
        """Lets a view find all views of the images, itself included, by their names."""
        keys = {
            **{name: name for name in self.others},
            **{name: (method.name, name) for name in self.made[method.name]},
        }
        if keys:
            others = {name: partial(compute, method, key) for name, key in keys.items()}
            view.views = NamedViews(**{self.first: lambda: view}, **others)
            self.shown.append(view)
        return view

    def _student_view_of(self, method: DistillMethod, key: Hashable) -> StudentView:
        """A further view: if it was not seen jointly, a pass of its own with a BatchNorm batch of its own."""
        if key not in self.student_passes:
            images = self._image(key)
            self.student_passes[key] = (images, self.adapter.extract(images))
        inputs, feats = self.student_passes[key]
        return StudentView(
            inputs, method.pair.student_feats(feats), feats, lambda: self.adapter.training_outputs(feats)
        )

    def _teacher_view_of(self, method: DistillMethod, image: Hashable) -> TeacherView:
        """One pass for each teacher and view; a method with statistics of its own sees a teacher of its own."""
        key = _key(method, image)
        if key not in self.teacher_views:
            inputs, feats = self.student_passes[None]  # views have one size, so their features have one grid
            done = self._teacher_pass(method, image, inputs if image is None else self._image(image))
            view = method.pair.teacher_view(done, method.pair.student_feats(feats), method.statistics)
            view.once = self.capture.once if image is None and method.pair.assigns_alike else AssignedOnce()
            self.teacher_views[key] = view
        return self.teacher_views[key]

    def _teacher_pass(self, method: DistillMethod, image: Hashable, inputs: Tensor) -> TeacherPass:
        key = _key(method, image)
        if key not in self.teacher_passes:
            sharing = [m for m in self.active if m.teacher == method.teacher and m.statistics is method.statistics]
            taps = _wanted(sharing, 'teacher_taps') if image is None else ()
            self.teacher_passes[key] = method.pair.teacher_pass(inputs, self.samples, taps, method.statistics)
        return self.teacher_passes[key]

    def _image(self, key: Hashable) -> Tensor:
        return self.made[key[0]][key[1]] if isinstance(key, tuple) else self.others[key]


def _key(method: DistillMethod, image: Hashable) -> tuple:
    return method.teacher, image, None if method.statistics is None else id(method.statistics)


def _part(tensors: Any, index: int, count: int) -> Any:
    """Returns one of ``count`` equal parts of all tensors in a structure, along the batch."""
    return with_tensors(tensors, (tensor.chunk(count)[index] for tensor in tensors_in(tensors)))


def _wanted(active: Sequence[DistillMethod], taps: str) -> list[str]:
    return sorted({name for method in active for name in getattr(method, taps)})
