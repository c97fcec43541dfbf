"""What every model must be able to do for a distiller."""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from fractions import Fraction
from typing import Any, Callable, Optional, Union

import torch
from torch import Tensor, nn

from mmrkd.adapters.abilities import Abilities
from mmrkd.adapters.assigned import TargetCapture, assign_alike, kept_targets
from mmrkd.adapters.dry_runs import DryRuns
from mmrkd.adapters.reuse import hiding, reuse_features
from mmrkd.adapters.samples import Samples, copied
from mmrkd.adapters.structure import tensors_in, with_tensors
from mmrkd.adapters.taps import Call, tap_outputs
from mmrkd.structures import Features, Level


class ModelAdapter(DryRuns, Abilities, ABC):
    """Uniform access to the features, head, losses and predictions of one model.

    ``feats`` always means what the model's ``extract_feat`` returned, in the model's own structure;
    :meth:`features` gives the distillable tensors in it and :meth:`replace` puts other tensors in their place.
    ``outputs`` means what :attr:`head` returned while the model computed its own losses. What they stand for is
    declared here, so that two heads are compared in one form: see :meth:`logits` and :meth:`boxes`.

    Args:
        model: The wrapped model. It is not owned and not changed.

    Attributes:
        serves: The classes of models that the adapter is for, see :func:`mmrkd.adapters.find_adapter`: a class, or
            its full dotted name so that nothing need be imported.
        refuses: Classes of models that it is not for, though they derive from one that it serves.
        refuses_because: Why not.
        at: Where in the model its distillable features lie, see :meth:`placed_at`.
        task: ``'detection'``, ``'classification'``, ...
        main_metric: Name of the metric that sums up the task, as evaluators of the library report it.
        metric_scale: What turns that metric into percent.
        default_tau: Temperature of the logits where none is given.
        sums_outputs: Whether :meth:`logits` are different quantities (where a joint is in x, and where in y), whose
            divergences are summed, and not levels of one, over which they are averaged.
        declares_padding: Whether ``img_shape`` of a sample says how much of the model's input is image and not padding.
        takes_necks: Whether the library builds a list of necks.
        has_boxes: Whether boxes belong to the outputs.
        two_stage: Whether a second stage scores the regions that :attr:`head` proposes.
    """

    serves: Union[type, str, Sequence[Union[type, str]]] = ()
    refuses: Union[type, str, Sequence[Union[type, str]]] = ()
    refuses_because: str = ''
    at: str = 'backbone'
    task: str
    main_metric: str
    metric_scale: float = 1.0
    default_tau: float = 1.0
    sums_outputs: bool = False
    declares_padding: bool = True
    takes_necks: bool = True
    has_boxes: bool = False
    two_stage: bool = False

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @classmethod
    def placed_at(cls, at: str) -> type['ModelAdapter']:
        """Returns the adapter of the same models whose distillable features lie elsewhere.

        Args:
            at: ``'backbone'``: what backbone and neck give. ``'penultimate'``: what the last convolution of a segmentor
                or pose estimator reads.

        Raises:
            ValueError: Such models have no features there.
        """
        if at != 'backbone':
            raise ValueError(
                f"the features of models for {cls.task} are those of backbone and neck, at='backbone', found {at!r}. "
                "Segmentors and pose estimators alone have others (at='penultimate')."
            )
        return cls

    def extract(self, inputs: Tensor) -> Any:
        """Runs backbone and neck on ``(N, 3, H, W)``."""
        return self.model.extract_feat(inputs)

    def tapped(
        self, names: Sequence[str], every: bool = False, inputs: bool = False
    ) -> AbstractContextManager[dict[str, Any]]:
        """Records the outputs of modules of the model, by their name in it (``'backbone.layer4'``), inside a ``with``.

        Args:
            names: Names of modules.
            every: All calls of each, see :func:`mmrkd.adapters.taps.tap_outputs`.
            inputs: What they were given, too.

        An activation that works in place would overwrite what the norm before it gave: those beside a recorded module
        work elsewhere meanwhile.

        Raises:
            KeyError: The model has no module of that name; the nearest names are suggested.
        """
        modules = {name: self._module(name) for name in names}
        behind = [child for name in names for child in self._module(name.rpartition('.')[0]).children()]
        return _unchanged_taps(modules, behind, every=every, inputs=inputs)

    def _module(self, name: str) -> nn.Module:
        try:
            return self.model.get_submodule(name)  # not by a walk through all modules: this is done each step
        except AttributeError:
            modules = dict(self.model.named_modules())
            children = [child for child, _ in self.model.named_children()]
            near = difflib.get_close_matches(name, modules, n=3, cutoff=0.4) or children
            text = f'{type(self.model).__name__} has no module {name!r}. Did you mean one of {near}?'
            raise KeyError(text) from None

    def features(self, feats: Any) -> Features:
        """Returns the distillable features in ``feats``, in the model's own order (mostly finest first)."""
        return tuple(tensors_in(feats))

    def replace(self, feats: Any, features: dict[int, Tensor]) -> Any:
        """Returns ``feats`` with some of its distillable features replaced (index in :meth:`features` -> tensor)."""
        return with_tensors(feats, (features.get(index, f) for index, f in enumerate(tensors_in(feats))))

    def positions(self, feats: Any) -> Optional[tuple[int, ...]]:
        """Where each of :meth:`features` lies among the levels that a neck gives; ``None``: they are all, in order."""
        return None

    def assemble(self, features: dict[int, Tensor]) -> Any:
        """Returns features, all of them, in the structure that the model's ``extract_feat`` gives."""
        return self.replace(self.dry_feats, features)

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

    def logit_maps(self, outputs: Any) -> list[Tensor]:
        """The same as :meth:`logits` on its grid: ``(N, A * K, H, W)`` for each level, ``(N, K, 1, 1)`` without one."""
        raise NotImplementedError(f'{type(self).__name__} does not say how its logits lie on a grid')

    def logit_strides(self) -> list[Union[int, Fraction, None]]:
        """Returns how many pixels a cell of each of :meth:`logit_maps` stands for; ``None`` without a grid."""
        return [level.stride for level in self.levels(self.dry_feats)]

    @abstractmethod
    def logits(self, outputs: Any) -> list[Tensor]:
        """Logits of the scores that the model predicts: one ``(P, K)`` tensor, K classes for each of P predictions.

        Whatever the head returns is brought to this one form: probabilities, and scores that are the product of two
        outputs.
        """

    def boxes(self, outputs: Any) -> list[Tensor]:
        """Boxes in the head's outputs, ``(P, 4 * box_bins)`` beside each of :meth:`logits`; empty without."""
        return []

    def box_scales(self, outputs: Any) -> list[Optional[Tensor]]:
        """What a difference of :meth:`boxes` is divided by, ``(P, 4)``: the size of the box; ``None`` for 1."""
        return [None for _ in self.boxes(outputs)]

    @property
    def box_bins(self) -> int:
        """Values that each side of a box has: 1, or the length of the distribution that GFL-type heads regress."""
        return 1

    @property
    def box_obstacle(self) -> Optional[str]:
        """Why the boxes cannot be compared; ``None`` if they can, or if there are none."""
        return None

    @property
    @abstractmethod
    def sigmoid(self) -> bool:
        """Whether the logits are independent (sigmoid) and not exclusive (softmax)."""

    @property
    def output_loss(self) -> str:
        """How two outputs of such a head are compared: ``'softmax'``, ``'sigmoid'`` or ``'mse'`` (heatmaps)."""
        return 'sigmoid' if self.sigmoid else 'softmax'

    def visibility(self, samples: Optional[Samples]) -> Optional[Tensor]:
        """Returns the weights ``(N, J)`` of the channels of outputs that are compared by ``'mse'``; ``None`` for 1."""
        return None

    @property
    def background(self) -> bool:
        """Whether the last of the exclusive classes is the background, to which almost all predictions belong."""
        return False

    def select_classes(self, outputs: Any, index: Sequence[int]) -> Any:
        """Returns outputs of the head as one of some of its classes would give them.

        Args:
            outputs: Outputs of the head.
            index: Places of these classes, in the order that is wanted.

        Raises:
            ValueError: It cannot be told where the scores of a class are.
        """
        raise ValueError(f'{type(self).__name__} does not say where the scores of a single class lie (class_map)')

    @abstractmethod
    def layout(self, feats: Any, index: Optional[Sequence[int]] = None) -> dict[str, Any]:
        """Describes the head's outputs. Outputs of two models can be compared if their layouts are equal.

        Args:
            feats: Features of a dry run.
            index: Describes the outputs for these classes alone, see :meth:`select_classes`.
        """

    @property
    @abstractmethod
    def num_classes(self) -> Optional[int]:
        """Number of classes that the head tells apart; ``None`` if it does not say."""

    def target_gap(self, student: 'ModelAdapter') -> Optional[str]:
        """Why this model cannot compute losses from what the student's pipeline prepares; ``None`` if it can."""
        return None

    @abstractmethod
    def blend(self, outputs: Any, other: Any, alpha: float, samples: Sequence) -> Sequence:
        """Predicts from ``(1 - alpha) * outputs + alpha * other``, post-processed by this model's head."""

    def targets(self, samples: Samples) -> Any:
        """Returns the ground truth in ``samples``: labels ``(N,)`` of images, or a list of instances."""
        raise NotImplementedError(f'{type(self).__name__} does not say where the ground truth lies in a sample')

    def task_loss(
        self, feats: Any, inputs: Tensor, samples: Samples, capture: Optional[TargetCapture] = None
    ) -> tuple[dict[str, Any], Any]:
        """Computes the model's own losses on given features.

        Args:
            feats: Features of the model, or estimates in the same structure.
            inputs: Images ``(N, 3, H, W)`` that they belong to.
            samples: Data samples with ground truth.
            capture: Receives the targets that the head assigned to its predictions on the way, and has those that it
                would assign once more. Defaults to None.

        Returns:
            The loss dictionary and the outputs of :attr:`head` seen on the way (``None`` if it was not called).
        """
        taps = {} if self.head is None else {'head': self.head}  # Fast R-CNN has neither bbox_head nor rpn_head
        with ExitStack() as stack:
            stack.enter_context(reuse_features(self.model, inputs, feats))
            calls = stack.enter_context(tap_outputs(taps, inputs=True))
            kept: list[Any] = []
            if capture is not None and hasattr(self.head, 'get_targets'):
                stack.enter_context(capture.once.reused(self.head))
                kept = stack.enter_context(kept_targets(self.head)) if capture.reads else []
            losses = self.model.loss(inputs, copied(self.samples_for(inputs, samples)))
        outputs = self.plain_outputs(calls['head'], feats) if 'head' in calls else None
        if kept:
            capture.assigned = self.assigned(kept[-1], outputs)
        return losses, outputs

    def plain_outputs(self, call: Call, feats: Any) -> Any:
        """Returns the outputs of :attr:`head` without what it added because it was told the labels."""
        return call.output

    def samples_for(self, inputs: Tensor, samples: Samples) -> Samples:
        """Returns samples that say of ``inputs`` what they say of the student's: where these are padded further."""
        return samples

    def assigns_like(self, other: 'ModelAdapter') -> bool:
        """Whether the heads of two models assign the same targets to the same batch, whatever they predict."""
        return assign_alike(self.head, other.head)

    def judge(
        self, feats: Any, inputs: Tensor, samples: Samples, capture: Optional[TargetCapture] = None
    ) -> tuple[dict[str, Any], Any]:
        """As :meth:`task_loss`, but leaves out what the batch has no ground truth for. For teachers."""
        return self.task_loss(feats, inputs, samples, capture)

    def predict(self, feats: Any, inputs: Tensor, samples: Samples) -> Sequence:
        """Predicts from given features, with the model's own post-processing."""
        with reuse_features(self.model, inputs, feats):
            return self.model.predict(inputs, self.samples_for(inputs, samples))

    def predict_through(self, extract: Callable[[Tensor], Any], inputs: Tensor, samples: Samples) -> Sequence:
        """Predicts from what a function computes of the images, in place of the model's own features.

        A model that looks at parts of an image one by one asks for the features of each.

        Args:
            extract: Turns images ``(N, 3, h, w)`` into features in the structure that :meth:`extract` gives.
            inputs: Images ``(N, 3, H, W)``.
            samples: Their data samples.
        """
        return self.predict(extract(inputs), inputs, samples)

    def pixels_per_cell(self, feature: Tensor) -> Optional[Fraction]:
        """The exact stride of a map that a dry run gave; ``None`` for a vector."""
        return Fraction(self.dry_size, feature.shape[-1]) if feature.dim() == 4 else None

    def levels(self, feats: Any) -> tuple[Level, ...]:
        """Describes the distillable features of a dry run.

        Raises:
            ValueError: A feature is neither a map nor a vector.
        """
        return tuple(_level(feature, self.dry_size) for feature in self.features(feats))


@contextmanager
def _unchanged_taps(
    modules: dict[str, nn.Module], behind: Sequence[nn.Module], **how: bool
) -> Iterator[dict[str, Any]]:
    with ExitStack() as stack:
        for activation in {id(m): m for m in behind if getattr(m, 'inplace', False)}.values():
            stack.enter_context(hiding(activation, 'inplace', False))
        yield stack.enter_context(tap_outputs(modules, **how))


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
