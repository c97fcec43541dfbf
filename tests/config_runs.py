"""What the tests of shipped configs share."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import ConfigDict
from mmengine.hooks import Hook


class Recorder(Hook):
    """Keeps what the runner reports."""

    def __init__(self):
        self.losses, self.metrics = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(outputs)

    def after_val_epoch(self, runner, metrics=None):
        self.metrics.append(metrics)


def dicts_in(node: Any) -> Iterator[ConfigDict]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ():
        yield from dicts_in(child)
