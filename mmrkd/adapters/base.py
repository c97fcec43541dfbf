"""What every model must be able to do for a distiller."""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from fractions import Fraction
from typing import Any, Optional

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmrkd.adapters.structure import tensors_in, with_tensors
from mmrkd.adapters.taps import tap_outputs
from mmrkd.structures import Features, Level


@contextmanager
def reuse_features(model: nn.Module, feats: Any) -> Iterator[None]:
    """Makes ``model.extract_feat`` return features that are already there, inside one ``with`` block.

    Every mmdet detector and mmpretrain classifier calls its own ``extract_feat`` in ``loss`` and ``predict``. Handing
    the features over this way means one backbone pass a step for the student, and lets the teacher's head judge
    estimated features, for any family, without copying a line of its forward code.
    """

    def extract_feat(*_args: Any, **_kwargs: Any) -> Any:
        return feats

    model.extract_feat = extract_feat  # an instance attribute hides the method of the class
    try:
        yield
    finally:
        del model.extract_feat


class ModelAdapter(ABC):
    """Uniform access to the features, head, losses and predictions of one model.

    ``feats`` always means what the model's ``extract_feat`` returned, in the model's own structure;
    :meth:`features` gives the distillable tensors in it and :meth:`replace` puts other tensors in their place.

    Args:
        model: The wrapped model. It is not owned and not changed.

    Attributes:
        dry_sizes: Pixels of the blank square images of a dry run. The first that the model can run on is taken: some
            have one input size of their own, others shrink a small image away.
        detects: Whether the outputs are dense predictions with boxes.
    """

    dry_sizes: tuple[int, ...] = (128, 320, 512)
    detects: bool = False

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._dry_size: Optional[int] = None
        self._dry_feats: Any = None

    def extract(self, inputs: Tensor) -> Any:
        """Runs backbone and neck on ``(N, 3, H, W)``."""
        return self.model.extract_feat(inputs)

    def tapped(self, names: Sequence[str]) -> AbstractContextManager[dict[str, Any]]:
        """Records the outputs of modules of the model, by their name in it (``'backbone.layer4'``), inside a ``with``.

        Raises:
            KeyError: The model has no module of that name; the nearest names are suggested.
        """
        modules = dict(self.model.named_modules()) if names else {}
        for name in names:
            if name not in modules:
                children = [child for child, _ in self.model.named_children()]
                near = difflib.get_close_matches(name, modules, n=3, cutoff=0.4) or children
                raise KeyError(f'{type(self.model).__name__} has no module {name!r}. Did you mean one of {near}?')
        return tap_outputs(**{name: modules[name] for name in names})

    def features(self, feats: Any) -> Features:
        """Returns the distillable features in ``feats``, in the model's own order (mostly finest first)."""
        return tuple(tensors_in(feats))

    def replace(self, feats: Any, features: dict[int, Tensor]) -> Any:
        """Returns ``feats`` with some of its distillable features replaced (index in :meth:`features` -> tensor)."""
        return with_tensors(feats, (features.get(index, f) for index, f in enumerate(tensors_in(feats))))

    def assemble(self, features: dict[int, Tensor]) -> Any:
        """Returns features, all of them, in the structure that the model's ``extract_feat`` gives."""
        if self._dry_feats is None:
            self.dry_run()
        return self.replace(self._dry_feats, features)

    @property
    @abstractmethod
    def head(self) -> Optional[nn.Module]:
        """The head whose outputs are logits: the dense head of a detector, the classifier's head."""

    @abstractmethod
    def head_outputs(self, feats: Any) -> Any:
        """Runs only that head on ``feats``."""

    def training_outputs(self, feats: Any) -> Any:
        """As :meth:`head_outputs`, in the form that the model's own losses see: some heads have two forms."""
        return self.head_outputs(feats)

    @abstractmethod
    def logits(self, outputs: Any) -> list[Tensor]:
        """Classification logits in the head's outputs: one ``(P, K)`` tensor, K classes for each of P predictions."""

    def boxes(self, outputs: Any) -> list[Tensor]:
        """Box regressions in the head's outputs, ``(P, 4 * box_bins)`` beside each of :meth:`logits`; empty without."""
        return []

    @property
    def box_bins(self) -> int:
        """Values that each side of a box has: 1, or the length of the distribution that GFL-type heads regress."""
        return 1

    @property
    @abstractmethod
    def sigmoid(self) -> bool:
        """Whether the logits are independent (sigmoid) and not exclusive (softmax)."""

    @abstractmethod
    def layout(self, feats: Any) -> dict[str, Any]:
        """Describes the head's outputs. Logits of two models can be compared if their layouts are equal."""

    @property
    @abstractmethod
    def num_classes(self) -> Optional[int]:
        """Number of classes that the head tells apart; ``None`` if it does not say."""

    @property
    def with_mask(self) -> bool:
        """Whether the model's own losses need masks in the ground truth."""
        return False

    @property
    def blend_obstacle(self) -> Optional[str]:
        """Why :meth:`blend` cannot work for this model; ``None`` if it can."""
        return None

    @abstractmethod
    def blend(self, outputs: Any, other: Any, alpha: float, samples: Sequence) -> Sequence:
        """Predicts from ``(1 - alpha) * outputs + alpha * other``, post-processed by this model's head."""

    def task_loss(self, feats: Any, inputs: Tensor, samples: Sequence) -> tuple[dict[str, Any], Any]:
        """Computes the model's own losses on given features.

        Args:
            feats: Features of the model, or estimates in the same structure.
            inputs: Images ``(N, 3, H, W)``; only handed on.
            samples: Data samples with ground truth.

        Returns:
            The loss dictionary and the outputs of :attr:`head` seen on the way (``None`` if it was not called).
        """
        taps = {} if self.head is None else {'head': self.head}  # Fast R-CNN has neither bbox_head nor rpn_head
        with reuse_features(self.model, feats), tap_outputs(**taps) as outputs:
            losses = self.model.loss(inputs, [_copied(sample) for sample in samples])
        return losses, outputs.get('head')

    def judge(self, feats: Any, inputs: Tensor, samples: Sequence) -> tuple[dict[str, Any], Any]:
        """As :meth:`task_loss`, but leaves out what the batch has no ground truth for. For teachers."""
        return self.task_loss(feats, inputs, samples)

    def predict(self, feats: Any, inputs: Tensor, samples: Sequence) -> Sequence:
        """Predicts from given features, with the model's own post-processing."""
        with reuse_features(self.model, feats):
            return self.model.predict(inputs, samples)

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
            ValueError: The model runs on none of :attr:`dry_sizes`.
        """
        errors = {}
        with self.evaluating():
            for size in self.dry_sizes:
                try:
                    feats = self.extract(self._blank(size, 2))  # of one, LeNet drops the batch dimension
                    layout = self.layout(feats)
                except (AssertionError, RuntimeError, ValueError) as error:
                    errors[size] = error
                else:
                    self._dry_size, self._dry_feats = size, feats
                    return feats, layout
        raise ValueError(f'{type(self.model).__name__} runs on blank images of none of these sizes: {errors}')

    @property
    def dry_size(self) -> int:
        """The one of :attr:`dry_sizes` that the model runs on."""
        if self._dry_size is None:
            self.dry_run()
        return self._dry_size

    def trial_image(self) -> Tensor:
        """Returns one blank image ``(1, 3, H, W)`` of a size that the model can take."""
        return self._blank(self.dry_size)

    def dry_run_taps(self, names: Sequence[str]) -> dict[str, Any]:
        """Returns what modules of the model give for one blank image. Changes no buffer."""
        image = self.trial_image()
        with self.evaluating(), self.tapped(names) as taps:
            self.extract(image)
        return taps

    def pixels_per_cell(self, feature: Tensor) -> Optional[Fraction]:
        """The exact stride of a map that a dry run gave; ``None`` for a vector."""
        return Fraction(self.dry_size, feature.shape[-1]) if feature.dim() == 4 else None

    def levels(self, feats: Any) -> tuple[Level, ...]:
        """Describes the distillable features of a dry run.

        Raises:
            ValueError: A feature is neither a map nor a vector.
        """
        return tuple(_level(feature, self.dry_size) for feature in self.features(feats))

    def _blank(self, size: int, count: int = 1) -> Tensor:
        mean = getattr(self.model.data_preprocessor, 'mean', None)
        return next(self.model.parameters()).new_zeros(count, 3 if mean is None else len(mean), size, size)


def _copied(sample: Any) -> Any:
    """A sample that a loss may write into (RTMDet exchanges its masks): tensors are shared, containers are not."""
    if not isinstance(sample, BaseDataElement):
        return sample
    copied = sample.clone()
    for name, value in sample.items():
        if isinstance(value, BaseDataElement):
            copied.set_field(value.clone(), name)
    return copied


def _level(feature: Tensor, size: int) -> Level:
    if feature.dim() not in (2, 4):
        raise ValueError(
            f'a feature is a map (N, C, H, W) or a vector (N, C), but its shape is {tuple(feature.shape)}. For '
            "a transformer that returns tokens (N, L, C), set its out_type to 'cls_token', 'avg_featmap' or 'featmap'"
        )
    return Level(feature.shape[1], None if feature.dim() == 2 else _stride(size, feature.shape[-1]))


def _stride(size: int, cells: int) -> int:
    """Exact ratio where it is one, otherwise the nearest power of two (19 cells for 300 pixels: 16)."""
    if size % cells == 0:
        return size // cells
    return 2 ** round(torch.log2(torch.tensor(size / cells)).item())
