"""mmseg segmentors seen at their last convolution: what it reads is the feature, it alone is the head."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Callable

import torch
from torch import Tensor

from mmrkd.adapters.reuse import hiding
from mmrkd.adapters.samples import Samples
from mmrkd.adapters.segmentation import SegmentationAdapter
from mmrkd.adapters.state import unchanged
from mmrkd.structures import Features


class PenultimateAdapter(SegmentationAdapter):
    """A segmentor whose one feature is what the last 1x1 convolution of its decode head reads, before its dropout.

    .. code:: text

        images ── backbone, neck ─┬─ decode head ── u ── dropout, 1x1 convolution ── logits
                                  └─ auxiliary heads

    So any head can teach any other one. ``feats`` are ``dict(body=what extract_feat returned, penultimate=u)``; a model
    that judges an estimate of u does so by the loss of that convolution's output alone.

    Not registered: :meth:`SegmentationAdapter.placed_at` chooses it.
    """

    at = 'penultimate'

    def extract(self, inputs: Tensor) -> dict[str, Any]:
        """Runs backbone, neck and the decode head up to its last convolution."""
        body = super().extract(inputs)
        return dict(body=body, penultimate=self._penultimate(body))

    def _penultimate(self, body: Any) -> Tensor:
        kept: list[Tensor] = []

        def cls_seg(feature: Tensor) -> Tensor:
            kept.append(feature)
            return feature.new_zeros(len(feature), self.head.out_channels, *feature.shape[2:])

        with hiding(self.head, 'cls_seg', cls_seg):
            super().head_outputs(body)
        if len(kept) != 1:
            raise ValueError(f'a {type(self.head).__name__} classifies {len(kept)} times, expected once')
        return kept[0]

    def dry_run(self) -> tuple[Any, dict[str, Any]]:
        """As the base class does.

        Raises:
            ValueError: The model is a cascade, or its last step is no classification of a feature.
        """
        if self.no_map is not None or len(self.decode_heads) > 1:
            reason = self.no_map or f'it has {len(self.decode_heads)} decode heads, one after the other'
            raise ValueError(self._obstacle(reason))
        feats, layout = super().dry_run()
        with self.evaluating():
            whole, part = (
                self.logit_maps(o)[0] for o in (super().head_outputs(feats['body']), self.head_outputs(feats))
            )
        if not torch.equal(whole, part):
            raise ValueError(self._obstacle('more follows behind its last classification'))
        return feats, layout

    def _obstacle(self, reason: str) -> str:
        return (
            f"at='penultimate' needs a decode head that ends with one 1x1 convolution, and the "
            f"{type(self.head).__name__} of this {type(self.model).__name__} does not: {reason}. Use at='backbone'."
        )

    def features(self, feats: dict[str, Any]) -> Features:
        """Returns u ``(N, C, h, w)``."""
        return (feats['penultimate'],)

    def replace(self, feats: dict[str, Any], features: dict[int, Tensor]) -> dict[str, Any]:
        """Returns ``feats`` with another u."""
        return {**feats, 'penultimate': features.get(0, feats['penultimate'])}

    def head_outputs(self, feats: dict[str, Any]) -> Tensor:
        """Returns the logits of u."""
        return self.head.cls_seg(feats['penultimate'])

    def auxiliary_outputs(self, feats: dict[str, Any]) -> list[Any]:
        """Returns the outputs of the auxiliary heads, which read the body's maps."""
        return super().auxiliary_outputs(feats['body'])

    def task_loss(
        self, feats: dict[str, Any], inputs: Tensor, samples: Samples, *args: Any
    ) -> tuple[dict[str, Any], Any]:
        """Computes the model's own losses: the decode head goes on from u, auxiliary heads read the body's maps."""
        with self._going_on(lambda: feats['penultimate']):
            return super().task_loss(feats['body'], inputs, samples, *args)

    def judge(
        self, feats: dict[str, Any], inputs: Tensor, samples: Samples, capture: Any = None
    ) -> tuple[dict[str, Any], Any]:
        """Computes the loss of what the last convolution makes of u. Auxiliary heads do not read it."""
        with unchanged(self.head.modules()):
            outputs = self.head_outputs(feats)
            losses = self.loss_of_outputs(outputs, samples)
        return {f'decode.{name}': value for name, value in losses.items()}, outputs

    def predict(self, feats: dict[str, Any], inputs: Tensor, samples: Samples) -> Sequence:
        """Predicts from u."""
        with self._going_on(lambda: feats['penultimate']):
            return super().predict(feats['body'], inputs, samples)

    def predict_through(self, extract: Callable[[Tensor], Any], inputs: Tensor, samples: Samples) -> Sequence:
        """Predicts from u as a function computes it of the image, or of each of its windows."""
        latest: list[Tensor] = []
        own = self.head.forward

        def body(images: Tensor) -> Any:
            with hiding(self.head, 'forward', own):
                feats = extract(images)
            latest[:] = [feats['penultimate']]
            return feats['body']

        with self._going_on(lambda: latest[0]):
            return super().predict_through(body, inputs, samples)

    @contextmanager
    def _going_on(self, penultimate: Callable[[], Tensor]) -> Iterator[None]:
        """Lets the decode head classify u, whatever maps it is called with, inside one ``with`` block."""
        with hiding(self.head, 'forward', lambda *_: self.head.cls_seg(penultimate())):
            yield
