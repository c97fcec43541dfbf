"""Mixed precision on any device, the CPU included."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import nn

from mmrkd.engine.optim.native_precision import computes_bfloat16
from mmrkd.registry import OPTIM_WRAPPERS

DTYPES = ('auto', 'bfloat16', 'float16')


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Runs the forward pass under ``torch.autocast``, without a loss scaler, where that makes it faster.

    mmengine's ``AmpOptimWrapper`` refuses to run on a CPU. bfloat16 has the exponent range of float32, so it needs no
    scaler, and on a CPU with AVX-512 BF16 or AMX a training step takes about half the time. On any other CPU it takes
    several times as long as float32; so by default the machine decides, and the log says how.

    Args:
        dtype: ``'auto'`` (the default): bfloat16 where the device of the model computes it natively (see
            :func:`computes_bfloat16`), else float32. ``'bfloat16'`` on any device, or ``'float16'`` where the device
            has it (no scaler: gradients may underflow).
        **kwargs: Arguments of :class:`mmengine.optim.OptimWrapper` (``optimizer``, ``clip_grad``,
            ``accumulative_counts``).
    """

    def __init__(self, dtype: str = 'auto', **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if dtype not in DTYPES:
            raise ValueError(f'dtype must be one of {DTYPES}, but got {dtype!r}')
        self.dtype = dtype
        self.cast_dtype: Optional[torch.dtype] = None if dtype == 'auto' else getattr(torch, dtype)
        """What is computed in; ``None`` for float32, or if that is still to be decided."""
        self._decided_for: Optional[str] = None

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Enters autocast on the device that holds the model's parameters, or nothing if it stays in float32."""
        device = next(model.parameters()).device
        if self.dtype == 'auto' and self._decided_for != device.type:
            self._decide(device)
        with super().optim_context(model):
            if self.cast_dtype is None:
                yield
            else:
                with torch.autocast(device.type, dtype=self.cast_dtype):
                    yield

    def _decide(self, device: torch.device) -> None:
        native, reason = computes_bfloat16(device)
        self.cast_dtype, self._decided_for = (torch.bfloat16 if native else None), device.type
        print_log(f'precision: {"bfloat16" if native else "float32"} ({reason}; dtype="auto")', 'current')
