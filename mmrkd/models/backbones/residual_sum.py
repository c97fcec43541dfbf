"""One stage of a residual pair: phi(F_S) + F_A."""

from typing import Optional

from mmengine.model import BaseModule
from torch import Tensor, nn


class ResidualSum(BaseModule):
    """Adds the assistant's features to the student's, each through a map of its own.

    The two maps are modules even where they change nothing, so that a method can tap both summands by name:
    ``<name>.student`` gives phi(F_S), ``<name>.assistant`` gives F_A.

    Args:
        student: phi. Defaults to the identity.
        assistant: The map that closes the assistant. Defaults to the identity.
    """

    def __init__(self, student: Optional[nn.Module] = None, assistant: Optional[nn.Module] = None) -> None:
        super().__init__()
        self.student = student or nn.Identity()
        self.assistant = assistant or nn.Identity()

    def forward(self, student_feat: Tensor, assistant_feat: Optional[Tensor] = None) -> Tensor:
        """Returns the sum; without the assistant's features phi(F_S) alone."""
        if assistant_feat is None:
            return self.student(student_feat)
        return self.student(student_feat) + self.assistant(assistant_feat)
