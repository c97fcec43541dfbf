"""What drifts in a teacher whose BatchNorm sees batches, kept so that a checkpoint can bring it back."""

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmrkd.models.teacher import FrozenTeacher


class TeacherStatistics(nn.Module):
    """Copies of the running statistics of a teacher with :attr:`FrozenTeacher.batch_statistics`.

    The teacher is nobody's submodule and in no checkpoint. Its drifting statistics belong to the training all the same:
    they are buffers here, and loading these puts them back into the teacher. So a resumed run goes on as it was, and a
    tested or exported bridge has the features that it was trained on.

    Args:
        teacher: The teacher.
    """

    def __init__(self, teacher: FrozenTeacher) -> None:
        super().__init__()
        self.teacher = teacher
        for name, value in self._drifting().items():
            self.register_buffer(name.replace('.', '_'), value.clone())

    @torch.no_grad()
    def keep(self) -> None:
        """Copies the statistics as they are now. Called after each step of the teacher."""
        for name, value in self._drifting().items():
            getattr(self, name.replace('.', '_')).copy_(value)

    @torch.no_grad()
    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        for name, value in self._drifting().items():
            value.copy_(getattr(self, name.replace('.', '_')))

    def _drifting(self) -> dict[str, torch.Tensor]:
        norms = [(name, m) for name, m in self.teacher.model.named_modules() if isinstance(m, _BatchNorm)]
        return {f'{name}.{key}': value for name, m in norms for key, value in m.named_buffers()}
