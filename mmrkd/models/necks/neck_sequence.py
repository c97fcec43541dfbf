"""Several necks as one, for libraries that take no list of them."""

from collections.abc import Sequence

from mmengine.model import Sequential

from mmrkd.registry import MODELS


@MODELS.register_module()
class NeckSequence(Sequential):
    """Necks one behind the other, named by their place.

    mmdet, mmpretrain and mmseg build a list of necks themselves; mmpose leaves out a neck that is no dictionary.

    Args:
        necks: Configs of the necks.
    """

    def __init__(self, necks: Sequence[dict]) -> None:
        super().__init__(*(MODELS.build(neck) for neck in necks))
