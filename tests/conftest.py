"""What every test starts from: one thread, fresh OpenMMLab globals, the same seeds, the environment as it was."""

import os
import random
from unittest import mock

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.utils import ManagerMixin

torch.set_num_threads(1)
TEST_REGISTRIES = (DATASETS, HOOKS, METRICS, MODELS)


def _subclasses(cls):
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


@pytest.fixture(autouse=True)
def fresh_globals():
    """Default scope, loggers, message hubs and visualisers are global in mmengine; a test leaves none behind.

    A logger also keeps the stream that was ``sys.stdout`` when it was made, which pytest closes after the test.
    """
    before = {cls: dict(cls._instance_dict) for cls in _subclasses(ManagerMixin)}
    registered = {registry: dict(registry._module_dict) for registry in TEST_REGISTRIES}
    for cls in before:
        cls._instance_dict.clear()
    yield
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            handler.close()
    for cls in _subclasses(ManagerMixin):
        cls._instance_dict.clear()
        cls._instance_dict.update(before.get(cls, {}))
    for registry, modules in registered.items():
        registry._module_dict.clear()
        registry._module_dict.update(modules)


@pytest.fixture(autouse=True)
def same_environment():
    """Runners and tools set variables such as ``LOCAL_RANK`` and ``OMP_NUM_THREADS``."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture(autouse=True)
def same_seed():
    """A test that draws numbers draws the same ones, alone or in any order."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
