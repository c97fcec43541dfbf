"""When a term of a method begins, where a schedule of the whole method would be too much."""

from typing import Optional

from mmrkd.models.methods.base import Progress

SHARE = 0.1


def ramp_factor(progress: Optional[Progress], begin: Optional[float] = None) -> float:
    r"""Returns the factor of a term that is off at first, rises and stays on.

    .. code:: text

        1 |               _________
          |           /
        0 |__________/
                  begin  2 begin

    Args:
        progress: How far the training is; ``None`` (no runner): the term is on.
        begin: Epochs after which it begins; 0: it is on from the start. Defaults to a tenth of the training.

    Returns:
        In [0, 1].
    """
    if progress is None or begin == 0:
        return 1.0
    now, begin = (progress.share, SHARE) if begin is None else (progress.epochs, begin)
    return min(1.0, max(0.0, now / begin - 1))
