"""Looking at a run without leaving a trace in it."""

import contextlib
import io
import logging
import random
from collections.abc import Iterator

import numpy as np
import torch
from mmengine.logging import MMLogger


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences what libraries print and log below an error."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def untouched_randomness() -> Iterator[None]:
    """Leaves the random state of Python, numpy and torch as it was."""
    python, arrays = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)
