"""A trained copy of another model as something to predict as."""

from collections.abc import Sequence
from typing import Union

from torch import Tensor

from mmrkd.models.heads.knowledge_bridge import KnowledgeBridge
from mmrkd.models.heads.peer import Peer
from mmrkd.models.heads.student_branches import Branch
from mmrkd.models.pair import Pair
from mmrkd.models.variants import Variant, require_same_images


class CopyVariant(Variant):
    """A bridge or a peer: a plain model of its config with the weights that were trained.

    Args:
        name: Name of the variant.
        copy: What was trained.
        cfg: Config of the whole model that it is, or is the upper part of.
        pair: Student and teacher.
    """

    def __init__(self, name: str, copy: Union[KnowledgeBridge, Peer, Branch], cfg: dict, pair: Pair) -> None:
        super().__init__(name)
        self.copy, self.cfg, self.pair = copy, cfg, pair

    def predict(self, inputs: Tensor, samples: Sequence) -> Sequence:
        """Predicts from images as the student sees them."""
        return self.copy.predict(inputs, samples)

    def model_config(self) -> dict:
        """Returns the plain config of the whole model.

        Raises:
            ValueError: It sees images of another size than the data gives.
        """
        require_same_images(self.name, self.pair)
        return self.cfg

    def weights(self) -> dict[str, Tensor]:
        """Returns the weights of the whole model."""
        return self.copy.whole_state()
