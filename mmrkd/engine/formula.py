"""What a method's own formula costs, with the models' features and outputs as given."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mmrkd.adapters.assigned import AssignedOnce
from mmrkd.adapters.structure import tensors_in, with_tensors
from mmrkd.models import Distiller
from mmrkd.models.step import Step
from mmrkd.structures import StudentView, TeacherView


def formula_alone(distiller: Distiller, data: dict[str, Any]) -> Callable[[], None]:
    """Returns a function that computes the terms of all methods and differentiates them, and nothing else.

    The passes of the bodies and the student's own losses are done before. What is left is what the paper's formula asks
    for, whoever computes it: the teacher's head, branches, a bridge, the terms. A distillation step cannot be faster
    than a plain one, the teacher's features and this.

    Args:
        distiller: In training mode. Its methods move their buffers, as in a step.
        data: What its data preprocessor returned.
    """
    methods = [m for _, m in sorted(distiller.methods.items()) if m.active and m.factor]
    samples = data['data_samples']
    with torch.no_grad():
        views = data.get('views', ())
        step = Step(distiller.adapter, methods, data['inputs'], samples, views, distiller.view_names)
        pairs = [(method, _leaves(step.student_view(method)), step.teacher_view(method)) for method in methods]

    def run() -> None:
        terms = []
        for method, student, teacher in pairs:
            if teacher is not None:
                _forget_outputs(teacher, keep_targets=method.pair.assigns_alike)
            losses = method.losses(student, teacher, samples)
            values = [part for name, value in losses.items() if 'loss' in name for part in tensors_in(value)]
            terms += [value.mean() for value in values if value.requires_grad]
        if terms:
            sum(terms).backward()
        for method in methods:
            method.zero_grad(set_to_none=True)

    return run


def _leaves(view: StudentView) -> StudentView:
    """The same view, with tensors that collect gradients themselves."""
    for name in ('feats', 'all_feats', 'taps', 'calls'):
        setattr(view, name, _leaf(getattr(view, name)))
    outputs = _leaf(view.outputs)
    view._outputs, view.compute_outputs = outputs, lambda: outputs
    return view


def _leaf(part: Any) -> Any:
    return with_tensors(part, (_own(tensor) for tensor in list(tensors_in(part))))


def _own(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_(tensor.is_floating_point())


def _forget_outputs(view: TeacherView, keep_targets: bool) -> None:
    """Lets the teacher's head run anew; targets that the student's losses assign in a step stay."""
    view._outputs = view._auxiliary = None
    if not keep_targets:
        view.once = AssignedOnce()
