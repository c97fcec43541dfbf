"""What a model gives for blank images: the shapes that everything is checked on before the first step."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Optional, Union

import torch
from torch import Tensor, nn


class DryRuns:
    """The part of an adapter that runs its model on blank images.

    Attributes:
        dry_sizes: Sizes of the blank images of a dry run: the side of a square, or height and width. The first that the
            model can run on is taken: some have one input size of their own, others shrink a small image away.
    """

    dry_sizes: Sequence[Union[int, tuple[int, int]]] = (128, 320, 512)
    model: nn.Module

    def __init__(self) -> None:
        self._dry_shape: Optional[tuple[int, int]] = None
        self._dry_feats: Any = None

    @abstractmethod
    def extract(self, inputs: Tensor) -> Any:
        """Runs backbone and neck on ``(N, 3, H, W)``."""

    @abstractmethod
    def layout(self, feats: Any, index: Optional[Sequence[int]] = None) -> dict[str, Any]:
        """Describes the head's outputs."""

    @abstractmethod
    def tapped(self, names: Sequence[str]) -> AbstractContextManager[dict[str, Any]]:
        """Records the outputs of modules of the model."""

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Puts the model into evaluation mode without gradients, and each module back into the mode it had."""
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for module in training:
                module.training = True

    def dry_run(self) -> tuple[Any, dict[str, Any]]:
        """Returns the features of two blank images and the :meth:`layout` of the head on them. Changes no buffer.

        Raises:
            TypeError: The model takes no image tensor.
            ValueError: The model runs on none of :attr:`dry_sizes`.
        """
        errors = {}
        with self.evaluating():
            for size in self.dry_sizes:
                self._dry_shape = (size, size) if isinstance(size, int) else tuple(size)  # a layout may ask for it
                try:
                    feats = self.extract(self._blank(self._dry_shape, 2))  # of one, LeNet drops the batch dimension
                    layout = self.layout(feats)
                except (AssertionError, RuntimeError, ValueError) as error:
                    errors[size] = error
                except (AttributeError, LookupError, TypeError) as error:
                    raise TypeError(self._takes_no_images(error)) from error
                else:
                    self._dry_feats = feats
                    return feats, layout
        self._dry_shape = None
        raise ValueError(f'{type(self.model).__name__} runs on blank images of none of these sizes: {errors}')

    def _takes_no_images(self, error: Exception) -> str:
        return (
            f'no adapter for {type(self.model).__name__}: {type(self).__name__} expects a model that computes features '
            f'of images (N, 3, H, W), and on two blank ones this one ends in {type(error).__name__}: {error}. If it '
            'takes something else (points, voxels, clips, texts), register an adapter for it: '
            '@mmrkd.registry.ADAPTERS.register_module()'
        )

    @property
    def dry_shape(self) -> tuple[int, int]:
        """Height and width of the one of :attr:`dry_sizes` that the model runs on."""
        if self._dry_shape is None:
            self.dry_run()
        return self._dry_shape

    @property
    def dry_size(self) -> int:
        """Width of :attr:`dry_shape`, by which strides are told."""
        return self.dry_shape[1]

    @property
    def dry_feats(self) -> Any:
        """Features of two blank images."""
        if self._dry_feats is None:
            self.dry_run()
        return self._dry_feats

    def trial_image(self) -> Tensor:
        """Returns one blank image ``(1, 3, H, W)`` of a size that the model can take."""
        return self._blank(self.dry_shape)

    def dry_run_taps(self, names: Sequence[str]) -> dict[str, Any]:
        """Returns what modules of the model give for one blank image. Changes no buffer."""
        image = self.trial_image()
        with self.evaluating(), self.tapped(names) as taps:
            self.extract(image)
        return taps

    def _blank(self, size: tuple[int, int], count: int = 1) -> Tensor:
        mean = getattr(getattr(self.model, 'data_preprocessor', None), 'mean', None)
        return next(self.model.parameters()).new_zeros(count, 3 if mean is None else len(mean), *size)
