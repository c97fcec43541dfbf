"""The outputs of a detector's dense head, brought to the forms in which two heads are compared."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Optional

from torch import Tensor

from mmrkd.adapters.assigned import AssignedTargets, read_targets
from mmrkd.adapters.base import ModelAdapter
from mmrkd.adapters.box_forms import BoxForm
from mmrkd.adapters.dense_heads import READINGS, HeadReading, reading_of
from mmrkd.adapters.judging import one_branch_predicts
from mmrkd.adapters.scores import combined, flat, logit_of_probability


class DenseOutputs(ModelAdapter):
    """The part of an adapter that reads the outputs of a dense head, as they are declared.

    Attributes:
        readings: Full name of a class of dense heads -> what its outputs mean, or ``None`` for what is not compared.
            A subclass of this adapter adds heads of its own.
    """

    has_boxes = True
    readings: dict[str, Optional[HeadReading]] = READINGS

    @property
    def reading(self) -> Optional[HeadReading]:
        """What the outputs of the dense head mean; ``None`` if it has no grid, or nobody has declared it."""
        if getattr(self.head, 'prior_generator', None) is None:
            return None
        return reading_of(self.head, self.readings)

    @property
    def columns(self) -> int:
        """Scores of a prediction: the classes, for a softmax head also the background."""
        return getattr(self.head, 'cls_out_channels', None) or self.head.num_classes

    def logit_maps(self, outputs: Any) -> list[Tensor]:
        """Returns ``(N, A * K, H_l, W_l)`` for each level."""
        scores, _, factors = self._parts(outputs)
        if self.reading.probabilities:
            return [logit_of_probability(level) for level in scores]
        if factors is None:
            return list(scores)
        return [combined(s, f, self.columns, self.reading.geometric) for s, f in zip(scores, factors)]

    def logits(self, outputs: Any) -> list[Tensor]:
        """Returns ``(N * H_l * W_l * A, K)`` for each level."""
        return [flat(level, self.columns) for level in self.logit_maps(outputs)]

    def boxes(self, outputs: Any) -> list[Tensor]:
        """Returns ``(N * H_l * W_l * A, 4 * box_bins)`` for each level, in the unit of their :attr:`box_form`.

        Args:
            outputs: In the form of training: in evaluation some heads give boxes in pixels.

        Raises:
            ValueError: The head regresses something else (the points of RepPoints).
        """
        scores, boxes, _ = self._parts(outputs)
        values, form = 4 * self.box_bins, self.box_form
        if any(b.shape[1] * self.columns != s.shape[1] * values for s, b in zip(scores, boxes)):
            raise ValueError(
                f'{type(self.head).__name__} does not regress {values} values for each prediction, so there are no '
                'boxes to compare. Set w_box=0.'
            )
        return [form.values(flat(b, values), level) for level, b in enumerate(boxes)]

    def box_scales(self, outputs: Any) -> list[Optional[Tensor]]:
        """Returns the sizes of the boxes ``(N * H_l * W_l * A, 4)``, where differences are not relative already."""
        form, boxes = self.box_form, self.boxes(outputs)
        return [None if form.scales is None else form.scales(b, level) for level, b in enumerate(boxes)]

    def class_scores(self, outputs: Any) -> list[Tensor]:
        """Returns the class logits alone, ``(P, K)`` beside each of :meth:`logits`, without what multiplies them."""
        return [flat(level, self.columns) for level in self._parts(outputs)[0]]

    def factors(self, outputs: Any) -> list[Tensor]:
        """Returns the logits ``(P,)`` that multiply the scores (centerness), for each level; empty without."""
        return [flat(level, 1).squeeze(1) for level in self._parts(outputs)[2] or ()]

    def corners(self, outputs: Any) -> list[Tensor]:
        """Returns what :meth:`boxes` decode to, ``(P, 4)``, each seen from its prior and in units of it.

        Raises:
            ValueError: That is not declared for the head.
        """
        if self.box_form.corners is None:
            raise ValueError(f'what the boxes of a {type(self.head).__name__} decode to is not declared')
        return [self.box_form.corners(level) for level in self.boxes(outputs)]

    @property
    def box_form(self) -> BoxForm:
        """How the head writes its boxes down.

        Raises:
            ValueError: They are no boxes.
        """
        form = self.reading.boxes(self.head)
        if isinstance(form, str):
            raise ValueError(f'the boxes of a {type(self.head).__name__} cannot be compared: {form}. Set w_box=0.')
        return form

    @cached_property
    def box_obstacle(self) -> Optional[str]:
        """Why the boxes cannot be compared, as found on a dry run."""
        if self.reading is None:
            return None  # nothing of it can; :meth:`layout` says so
        feats = self.dry_feats
        try:
            with self.evaluating():
                self.boxes(self.training_outputs(feats))
        except ValueError as error:
            return str(error)
        return None

    def _parts(self, outputs: Any) -> tuple:
        if self.reading is None:
            raise ValueError(f'{self._undeclared()}: its outputs cannot be compared with those of another head')
        return self.reading.split(self.head, outputs)

    def _undeclared(self) -> str:
        if getattr(self.head, 'prior_generator', None) is None:
            return f'none ({type(self.head).__name__})'
        return f'{type(self.head).__name__}, whose outputs are not declared in DetectionAdapter.readings'

    @property
    def box_bins(self) -> int:
        """``reg_max + 1`` of a head that integrates a distribution (GFL and its heirs)."""
        return self.head.reg_max + 1 if hasattr(self.head, 'integral') else 1

    @property
    def sigmoid(self) -> bool:
        """Whether the dense head uses sigmoid scores."""
        if self.reading is not None and self.reading.independent is not None:
            return self.reading.independent
        return bool(getattr(self.head, 'use_sigmoid_cls', False))

    @property
    def background(self) -> bool:
        """Whether the last class is the background: of softmax heads it is."""
        return not self.sigmoid

    @property
    def assigns(self) -> bool:
        """Whether the head ends with the labels that its ``get_targets`` returns."""
        return self.reading is not None and self.reading.assigns and hasattr(self.head, 'get_targets')

    def priors(self, outputs: Any) -> list[Tensor]:
        """Returns the anchors ``(H_l * W_l * A, 4)`` as corners, or the points ``(H_l * W_l, 2)``, in pixels."""
        scores, _, _ = self._parts(outputs)
        sizes, like = [level.shape[-2:] for level in scores], scores[0]
        return self.head.prior_generator.grid_priors(sizes, dtype=like.dtype, device=like.device)

    def assigned(self, returned: Any, outputs: Any) -> Optional[AssignedTargets]:
        """Returns the labels of all predictions; ``None`` where the head does not end with those it assigned."""
        if self.reading is None or not self.reading.assigns or outputs is None:
            return None
        classes = self.columns - 1 if self.background else self.columns
        return read_targets(returned, [len(level) for level in self.logits(outputs)], classes)

    def select_classes(self, outputs: Any, index: Sequence[int]) -> Any:
        """Returns outputs whose scores are those of some classes; boxes and factors have none. An RPN knows no classes.

        Raises:
            ValueError: Scores are no maps of their own.
        """
        if self.two_stage:
            return outputs
        scores = self._parts(outputs)[0]
        if scores is not outputs[0]:
            raise ValueError(
                f'the scores of a {type(self.head).__name__} are no maps of their own, so that those of single classes '
                'cannot be taken out (class_map)'
            )
        columns = [*index, self.columns - 1] if self.background else list(index)

        def chosen(level: Tensor) -> Tensor:
            n, _, height, width = level.shape
            return level.reshape(n, -1, self.columns, height, width)[:, :, columns].flatten(1, 2)

        return (type(scores)(chosen(level) for level in scores), *outputs[1:])

    def layout(self, feats: Any, index: Optional[Sequence[int]] = None) -> dict[str, Any]:
        """Shapes of all dense outputs on a dry run, kind of scores, priors and box coder.

        Heads without a dense grid (DETR) are described by their type alone and line up with nothing.
        """
        head = self.head
        if one_branch_predicts(self.model):
            return {'dense head': 'several branches in training'}
        if self.reading is None:
            return {'dense head': self._undeclared()}
        outputs = head(feats) if index is None else self.select_classes(head(feats), index)
        columns = self.columns if index is None or self.two_stage else len(index) + self.background
        coder = getattr(head, 'bbox_coder', None)
        return {
            'outputs': [[tuple(level.shape) for level in part] for part in outputs if isinstance(part, (list, tuple))],
            'classes': columns,
            'sigmoid': self.sigmoid,
            **self.reading.describe(head),
            'priors': _describe_priors(head.prior_generator),
            'box coder': (type(coder).__name__, getattr(coder, 'means', None), getattr(coder, 'stds', None)),
        }


def _describe_priors(generator: Any) -> tuple:
    anchors = [base.tolist() for base in getattr(generator, 'base_anchors', ())]
    return type(generator).__name__, list(generator.strides), getattr(generator, 'offset', None), anchors
