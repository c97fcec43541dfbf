"""A teacher that was trained for other classes is found before the first iteration."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmrkd.registry import HOOKS


@HOOKS.register_module()
class ClassCheckHook(Hook):
    """Compares the class names in the teacher's checkpoint with those of the training data."""

    def before_train(self, runner: Runner) -> None:
        """Checks names and order; says nothing if either side has no names.

        Raises:
            ValueError: The names differ. A teacher that calls class 3 what the data calls class 5 teaches errors.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        expected = (getattr(runner.train_dataloader.dataset, 'metainfo', None) or {}).get('classes')
        found = model.teacher.classes
        if expected is None or found is None or tuple(expected) == tuple(found):
            return
        raise ValueError(
            f'the teacher was trained for other classes than the data has: expected {tuple(expected)}, '
            f'found {tuple(found)} in {model.teacher.ckpt!r}. Names and order must agree.'
        )
