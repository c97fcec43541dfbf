"""mmpose's pose estimators seen at their last convolution: what it reads is the feature, what follows is the head."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Callable

import torch
from torch import Tensor, nn

from mmrkd.adapters.pose import PoseAdapter
from mmrkd.adapters.reuse import hiding
from mmrkd.adapters.samples import Samples
from mmrkd.adapters.structure import tensors_in
from mmrkd.structures import Features


class PenultimatePoseAdapter(PoseAdapter):
    """A pose estimator whose one feature is what the last convolution of its head reads, behind its deconvolutions.

    .. code:: text

        images ── backbone, neck ── deconvolutions ── u ── convolution ─┬─ heatmaps
                                                                        └─ x, y (SimCC)

    So a head with deconvolutions teaches one without, at one stride. A head that has none (RTMCC) reads u from the
    backbone. ``feats`` are ``dict(body=what extract_feat returned, penultimate=u)``.

    Not registered: :meth:`PoseAdapter.placed_at` chooses it.
    """

    at = 'penultimate'

    def extract(self, inputs: Tensor) -> dict[str, Any]:
        """Runs backbone, neck and the head up to its last convolution."""
        body = super().extract(inputs)
        return dict(body=body, penultimate=self._penultimate(body))

    def _penultimate(self, body: Any) -> Tensor:
        if not hasattr(self._owner, 'deconv_layers'):
            return list(tensors_in(body))[-1]
        kept: list[Tensor] = []
        convolution = self._convolution

        def final_layer(feature: Tensor) -> Tensor:
            kept.append(feature)
            return feature.new_zeros(len(feature), convolution.out_channels, *feature.shape[2:])

        with hiding(convolution, 'forward', final_layer):
            self._owner(body)
        return kept[0]

    @property
    def _owner(self) -> nn.Module:
        """What the last convolution is a part of: the head, or of SimCC the head of heatmaps inside it."""
        inner = getattr(self.head, 'deconv_head', None)
        return self.head if inner is None else inner

    @property
    def _convolution(self) -> nn.Conv2d:
        """The last convolution.

        Raises:
            ValueError: There is none.
        """
        convolution = getattr(self._owner, 'final_layer', None)
        if not self.reads_last or not isinstance(convolution, nn.Conv2d):
            raise ValueError(self._obstacle('it has no final_layer that is one, or reads several maps'))
        return convolution

    def dry_run(self) -> tuple[Any, dict[str, Any]]:
        """As the base class does.

        Raises:
            ValueError: The head does not go on from one convolution.
        """
        if self._convolution is None or self.no_outputs is not None:
            raise ValueError(self._obstacle(f'it gives {self.no_outputs}'))
        feats, layout = super().dry_run()
        with self.evaluating():
            whole, part = super().head_outputs(feats['body']), self.head_outputs(feats)
        if not all(torch.equal(*pair) for pair in zip(tensors_in(whole), tensors_in(part))):
            raise ValueError(self._obstacle('from there on it computes something else'))
        return feats, layout

    def _obstacle(self, reason: str) -> str:
        return (
            f"at='penultimate' needs a head of heatmaps or coordinates that goes on from one last convolution, and the "
            f"{type(self.head).__name__} of this {type(self.model).__name__} does not: {reason}. Use at='backbone'."
        )

    def features(self, feats: dict[str, Any]) -> Features:
        """Returns u ``(N, C, h, w)``."""
        return (feats['penultimate'],)

    def replace(self, feats: dict[str, Any], features: dict[int, Tensor]) -> dict[str, Any]:
        """Returns ``feats`` with another u."""
        return {**feats, 'penultimate': features.get(0, feats['penultimate'])}

    def positions(self, feats: Any) -> tuple[int, ...]:
        """The one feature is none of those that a neck gives."""
        return (0,)

    def head_outputs(self, feats: dict[str, Any]) -> Any:
        """Returns what the head makes of u."""
        owner, u = self._owner, feats['penultimate']
        if not hasattr(owner, 'deconv_layers'):
            return super().head_outputs((u,))
        with hiding(owner, 'forward', lambda *_: owner.final_layer(u)):
            return super().head_outputs(feats['body'])

    def task_loss(
        self, feats: dict[str, Any], inputs: Tensor, samples: Samples, *args: Any
    ) -> tuple[dict[str, Any], Any]:
        """Computes the model's own losses, from u."""
        with self._going_on():
            return super().task_loss(feats, inputs, samples, *args)

    def predict_through(self, extract: Callable[[Tensor], Any], inputs: Tensor, samples: Samples) -> Sequence:
        """Predicts from u as a function computes it of the images and, if asked for, of their mirror images."""
        own = self.head.forward

        def whole(images: Tensor) -> Any:
            with hiding(self.head, 'forward', own):  # which the function may call itself
                return extract(images)

        with self._going_on():
            return super().predict_through(whole, inputs, samples)

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Lets the head go on from u in what it is called with, inside one ``with`` block."""
        own = self.head.forward

        def forward(feats: dict[str, Any]) -> Any:
            with hiding(self.head, 'forward', own):
                return self.head_outputs(feats)

        with hiding(self.head, 'forward', forward):
            yield
