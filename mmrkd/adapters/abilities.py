"""What only some models can do: an adapter says that its model can, or why it cannot."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Optional

from torch import Tensor, nn

from mmrkd.adapters.image_graph import ImageGraph
from mmrkd.adapters.samples import Samples
from mmrkd.adapters.weighing import PixelLoss


class Abilities:
    """The part of :class:`~mmrkd.adapters.ModelAdapter` that is there for some models alone.

    As it stands, nothing of it is possible. What has an ``..._obstacle`` is asked for only where that is ``None``.
    """

    model: nn.Module
    task: str
    output_loss: str

    def auxiliary_outputs(self, feats: Any) -> list[Any]:
        """Runs the heads that the model has in training alone; of most models there are none."""
        return []

    @property
    def with_mask(self) -> bool:
        """Whether the model's own losses need masks in the ground truth."""
        return False

    @property
    def blend_obstacle(self) -> Optional[str]:
        """Why :meth:`blend` cannot work for this model; ``None`` if it can."""
        return None

    @property
    def mixing_obstacle(self) -> Optional[str]:
        """Why the outputs of such heads cannot be mixed into one that is trained; ``None`` if they can."""
        return None if self.output_loss == 'mse' else f'{type(self.model).__name__} predicts no one map'

    def loss_of_outputs(self, outputs: Any, samples: Samples) -> dict[str, Any]:
        """Computes the loss of :attr:`head` on outputs that it need not have given itself."""
        raise NotImplementedError(f'{type(self).__name__} does not say what the loss of given outputs is')

    @property
    def weighing_obstacle(self) -> Optional[str]:
        """Why :meth:`weighing` cannot work for this model; ``None`` if it can."""
        return f'{type(self.model).__name__} has no loss of single pixels'

    def weighing(self, weigh: Callable[[PixelLoss], Tensor]) -> AbstractContextManager[None]:
        """Lets the model's own loss weigh its pixels, inside a ``with`` block.

        Args:
            weigh: Asked by each head: returns how much each pixel counts, ``(N, H, W)``.
        """
        raise NotImplementedError(self.weighing_obstacle)

    @property
    def assigns(self) -> bool:
        """Whether :meth:`task_loss` can tell which label each prediction was assigned."""
        return False

    def priors(self, outputs: Any) -> list[Tensor]:
        """Returns what each prediction of one image starts from, for each level, in the order of :meth:`logits`."""
        raise NotImplementedError(f'{type(self).__name__} does not say what its predictions start from')

    def assigned(self, returned: Any, outputs: Any) -> Any:
        """Reads what the head's ``get_targets`` returned, see :func:`mmrkd.adapters.assigned.read_targets`."""
        return None

    @property
    def region_obstacle(self) -> Optional[str]:
        """Why the model has no scores of regions that could be compared; ``None`` if it has."""
        return f'{type(self.model).__name__} has no second stage'

    def region_logits(self, feats: Any, rois: Tensor) -> Tensor:
        """Scores regions ``(R, 5)`` by a second stage: ``(R, K + 1)`` with the background last."""
        raise NotImplementedError(self.region_obstacle)

    def graph(self, size: Sequence[int], outputs: Optional[str] = None) -> ImageGraph:
        """Returns the model as a product takes it: images in, results out, to be written in another form.

        Args:
            size: ``(height, width)`` of the images.
            outputs: What to give, where there is a choice. Defaults to the final results.

        Raises:
            ValueError: That is not possible for this model; the message says what is.
        """
        raise ValueError(f'a {type(self.model).__name__} ({self.task}) cannot be written as a graph yet')
