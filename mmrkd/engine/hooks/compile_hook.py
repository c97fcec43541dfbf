"""``torch.compile`` for the parts of student and teacher that gain by it."""

from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmrkd.registry import HOOKS


@HOOKS.register_module()
class CompileHook(Hook):
    """Compiles backbone and neck of student and teacher, in place.

    mmengine's own setting ``compile = dict(...)`` works too and compiles the whole training step; but heads, assigners
    and samplers depend on the data, so that it spends minutes on pieces that gain nothing. Names in checkpoints and
    weights stay what they are.

    Args:
        parts: Names of modules that both models may have. Defaults to ``('backbone', 'neck')``.
        **options: Arguments of :func:`torch.compile` (``backend``, ``mode``, ``dynamic``).
    """

    def __init__(self, parts: Sequence[str] = ('backbone', 'neck'), **options: Any) -> None:
        self.parts, self.options = tuple(parts), options

    def before_train(self, runner: Runner) -> None:
        """Compiles; code is made when a part is first run, once for each shape of image.

        Raises:
            ValueError: A method taps modules inside of the models, which compiled code does not stop at.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        tapping = [type(m).__name__ for m in model.methods.values() if m.student_taps or m.teacher_taps]
        if tapping:
            raise ValueError(f'CompileHook cannot be used with {tapping}: they tap modules inside of the models')
        for owner in (model.student, *(teacher.model for teacher in model.teachers.values())):
            for name in self.parts:
                part = getattr(owner, name, None)
                if part is not None:
                    part.compile(**self.options)
