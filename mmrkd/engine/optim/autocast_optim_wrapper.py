"""Mixed precision on any device, the CPU included."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmrkd.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Runs the forward pass under ``torch.autocast`` in bfloat16, without a loss scaler.

    mmengine's ``AmpOptimWrapper`` refuses to run on a CPU. bfloat16 has the exponent range of float32, so it needs no
    scaler, and on a CPU with AVX-512 BF16 or AMX a training step takes about half the time.

    Args:
        dtype: ``'bfloat16'``, or ``'float16'`` where the device has it (no scaler: gradients may underflow).
        **kwargs: Arguments of :class:`mmengine.optim.OptimWrapper` (``optimizer``, ``clip_grad``,
            ``accumulative_counts``).
    """

    def __init__(self, dtype: str = 'bfloat16', **kwargs) -> None:
        super().__init__(**kwargs)
        if dtype not in ('bfloat16', 'float16'):
            raise ValueError(f"dtype must be 'bfloat16' or 'float16', but got {dtype!r}")
        self.cast_dtype = getattr(torch, dtype)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Enters autocast on the device that holds the model's parameters."""
        device_type = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device_type, dtype=self.cast_dtype):
            yield
