"""A teacher that was trained for other classes is found before the first iteration."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmrkd.adapters.names import names_in
from mmrkd.registry import HOOKS


@HOOKS.register_module()
class ClassCheckHook(Hook):
    """Compares the class names in a teacher's checkpoint with those of the training data.

    Only where a method compares classes with that teacher (:attr:`DistillMethod.compares_classes`): features may come
    from a teacher that knows others. ``check=dict(ignore=['class-names'])`` of the config accepts it.
    """

    def before_train(self, runner: Runner) -> None:
        """Checks names and order; says nothing if either side has no names.

        Raises:
            ValueError: The names differ. A teacher that calls class 3 what the data calls class 5 teaches errors.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        meta = getattr(runner.train_dataloader.dataset, 'metainfo', None) or {}
        expected = names_in(meta)
        check = getattr(runner, 'cfg', {}).get('check')
        if isinstance(check, dict) and 'class-names' in (check.get('ignore') or ()):
            return
        asked = {m.teacher for m in model.methods.values() if m.active and m.compares_classes}
        for teacher in [teacher for name, teacher in model.teachers.items() if name in asked]:
            if expected is not None and teacher.classes is not None and tuple(expected) != tuple(teacher.classes):
                raise ValueError(
                    f'the teacher was trained for other classes than the data has: expected {tuple(expected)}, '
                    f'found {tuple(teacher.classes)} in {teacher.ckpt!r}. Names and order must agree.'
                )
