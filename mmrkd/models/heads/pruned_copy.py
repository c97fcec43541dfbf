"""A teacher that has lost its smallest weights."""

from copy import deepcopy

from torch import nn


def pruned_copy(model: nn.Module, rate: float) -> nn.Module:
    """Returns a frozen copy in which the weight of each convolution and linear layer has lost its smallest values.

    Of n values ``round(rate * n)`` of the least magnitude become 0, layer by layer. Biases and norms stay, and nothing
    is tuned afterwards.

    Args:
        model: Not changed.
        rate: Share, in [0, 1).
    """
    copy = deepcopy(model).requires_grad_(False).eval()
    for module in copy.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            values = module.weight.data.flatten()
            values[values.abs().topk(round(rate * values.numel()), largest=False).indices] = 0
            module.weight.data.copy_(values.view_as(module.weight))
    return copy
