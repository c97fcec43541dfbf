"""Evaluation of the student and, beside it, of what else a distillation made."""

from collections.abc import Sequence
from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import TestLoop, ValLoop

from mmrkd.registry import LOOPS


class _EachVariant:
    """Runs over the data once for each variant and reports all metrics together.

    The hooks of an epoch are called once, so that EMA is swapped in once and ``save_best`` finds its metric. The
    student's metrics keep their plain names; those of the others carry the variant's name in front.
    """

    stage: str

    def __init__(self, *args: Any, variants: Sequence[str] = ('student',), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.variants = tuple(variants)
        model = self._distiller()
        chosen = model.variant
        for variant in self.variants:  # a variant that cannot be is refused now, not after an epoch
            model.set_variant(variant)
        model.set_variant(chosen)

    def _distiller(self) -> Any:
        return self.runner.model.module if is_model_wrapper(self.runner.model) else self.runner.model

    def run(self) -> dict[str, float]:
        """Returns the metrics of all variants. The model is left predicting as it did before."""
        self.runner.call_hook(f'before_{self.stage}')
        self.runner.call_hook(f'before_{self.stage}_epoch')
        self.runner.model.eval()
        model = self._distiller()
        chosen, metrics = model.variant, {}
        try:
            for variant in self.variants:
                model.set_variant(variant)
                for index, batch in enumerate(self.dataloader):
                    self.run_iter(index, batch)
                prefix = '' if variant == 'student' else f'{variant}/'
                result = self.evaluator.evaluate(len(self.dataloader.dataset))
                metrics.update({f'{prefix}{key}': value for key, value in result.items()})
        finally:
            model.set_variant(chosen)
        self.runner.call_hook(f'after_{self.stage}_epoch', metrics=metrics)
        self.runner.call_hook(f'after_{self.stage}')
        return metrics


@LOOPS.register_module()
class VariantValLoop(_EachVariant, ValLoop):
    """Validation of several variants of a :class:`mmrkd.models.Distiller`.

    Args:
        variants: Names of :attr:`Distiller.variants`. Defaults to the student alone.
        **kwargs: Arguments of :class:`mmengine.runner.ValLoop`.
    """

    stage = 'val'


@LOOPS.register_module()
class VariantTestLoop(_EachVariant, TestLoop):
    """Test of several variants of a :class:`mmrkd.models.Distiller`, see :class:`VariantValLoop`."""

    stage = 'test'
