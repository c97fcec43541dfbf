"""Where the stages of a backbone end, as its own forward pass shows it."""

from mmrkd.adapters.base import ModelAdapter
from mmrkd.adapters.split import trace


def stage_ends(adapter: ModelAdapter) -> tuple[str, ...]:
    """Returns the names of the modules with which the stages of a backbone end, without the last.

    A part of the backbone that returns a lower resolution than the part before it begins a stage, and that one ends the
    stage before. A stem, a single layer in front of the first stage, is none (ours).

    Args:
        adapter: Adapter of the model, which is run once on a blank image.

    Raises:
        ValueError: The resolution never falls, so that there is only one stage.
    """
    parts = [
        c for c in trace(adapter) if c.cells and c.weighted and c.caller is not None and c.caller.name == 'backbone'
    ]
    ends = [before.name for before, part in zip(parts, parts[1:]) if part.cells < before.cells]
    stages = tuple(name for name in ends if next(adapter.model.get_submodule(name).children(), None) is not None)
    if not stages:
        raise ValueError(
            f'{type(adapter.model.backbone).__name__} has no stage before the last one: none of its parts '
            f'{[part.name for part in parts]} has a lower resolution than the one before'
        )
    return stages
