"""S of ResidualKD without its assistant."""

from collections.abc import Sequence
from copy import deepcopy

from torch import Tensor

from mmrkd.adapters import ModelAdapter
from mmrkd.models.variants import StudentVariant
from mmrkd.registry import MODELS


class StudentAloneVariant(StudentVariant):
    """The student without what the assistant adds. It is not called ``student``: that is what checkpoints hold.

    Args:
        adapter: Adapter of the student.
        cfg: The student's model config.
        path: Name of the module of the student that adds phi(F_S) and F_A.
    """

    def __init__(self, adapter: ModelAdapter, cfg: dict, path: str) -> None:
        super().__init__('student_alone', adapter, cfg)
        self.path = path

    def predict(self, inputs: Tensor, samples: Sequence) -> Sequence:
        """Predicts from phi(F_S)."""
        with self.adapter.model.get_submodule(self.path).unassisted():
            return self.adapter.model(inputs, samples, mode='predict')

    def model_config(self) -> dict:
        """Returns the student's config without the assistant."""
        student = deepcopy(self.cfg)
        part = student
        for key in self.path.split('.'):
            part = part[int(key) if key.isdigit() else key]
        part.update(dict(assistant=None) if 'student' in part else dict(num_convs=0))
        return student

    def weights(self) -> dict[str, Tensor]:
        """Returns those of the student's weights that are left."""
        trained = self.adapter.model.state_dict()
        return {name: trained[name] for name in MODELS.build(deepcopy(self.model_config())).state_dict()}

    def build(self):
        """Returns it as a plain model in evaluation mode."""
        return super(StudentVariant, self).build()
