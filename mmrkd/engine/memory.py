"""How much memory a computation needs beyond what is there before it."""

from collections.abc import Callable
from typing import Any

import torch


def peak_memory(function: Callable[[], Any], device: str) -> int:
    """Runs a function and returns the most bytes that it had allocated at once; what is given back counts.

    On a GPU torch's allocator knows. On a CPU torch's profiler writes every allocation of a tensor down: this takes
    time, and sees what the operators hold for a moment, too.

    Args:
        function: Takes no arguments.
        device: ``'cpu'`` or ``'cuda'``.
    """
    if device.startswith('cuda'):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        function()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == '[memory]']
    events.sort(key=lambda event: event.start_ns() if hasattr(event, 'start_ns') else event.start_us())
    present = most = 0
    for event in events:
        present += event.nbytes()
        most = max(most, present)
    return most
