"""What an auxiliary branch predicts, in the middle of the student."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmrkd.adapters import ModelAdapter
from mmrkd.models.variants import Variant


class ExitVariant(Variant):
    """The student up to one of its stages, and a branch in the place of the rest.

    Args:
        name: Its name.
        student: Adapter of the student.
        layer: Module of the student after which it leaves.
        branch: What predicts there: map -> (map, logits).
    """

    def __init__(self, name: str, student: ModelAdapter, layer: str, branch: nn.Module) -> None:
        super().__init__(name)
        self.student, self.layer, self.branch = student, layer, branch

    @torch.no_grad()
    def predict(self, inputs: Tensor, samples: Sequence) -> Sequence:
        """Predicts from images as the student sees them. The student is run to its end."""
        with self.student.tapped([self.layer]) as taps:
            self.student.extract(inputs)
        logits = self.branch(taps[self.layer])[1]
        return self.student.blend(logits, logits, 0.0, samples)

    def model_config(self) -> dict:
        """Raises ValueError: the branch exists in the training alone."""
        raise ValueError(
            f'the variant {self.name!r} is a branch on {self.layer!r} of the student, for which there is no plain '
            'config. Evaluate it with the distillation config (--variants of the test tool).'
        )

    def weights(self) -> dict[str, Tensor]:
        """Raises ValueError, as :meth:`model_config`."""
        return self.model_config()
