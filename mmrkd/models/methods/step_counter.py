"""How many steps a method has done, as a part of its state."""

import torch
from torch import Tensor, nn


class StepCounter(nn.Module):
    """Counts in Python, so that no step asks the device, and is saved and resumed with what the method has learnt.

    Attributes:
        count: Steps so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def get_extra_state(self) -> Tensor:
        """Returns the count as it goes into a state dict, on the CPU."""
        return torch.tensor(self.count)

    def set_extra_state(self, state: Tensor) -> None:
        """Takes the count from a state dict."""
        self.count = int(state)
