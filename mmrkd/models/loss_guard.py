"""Losses that are not finite are found before they reach the weights."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.logging import MessageHub, print_log
from torch import Tensor, nn


class LossGuard:
    """Looks at every loss term of a step; one that is NaN or infinite stops the training or leaves the batch out.

    All processes come to the same decision, and the message names the term, the iteration and the images. It costs one
    reduction of a single number.

    A forward pass writes, too: running statistics of norms, of a standardiser, whatever a loss keeps in buffers. A
    batch that is left out leaves no trace there either, if the pass is run inside :meth:`watching`:

    .. code:: python

        with guard.watching(model):
            losses = guard(compute(inputs, samples), samples, model.parameters())

    Args:
        on_nonfinite: ``'stop'`` raises an error. ``'skip'`` warns, puts the buffers back and replaces the losses of the
            step by one of 0 that gives each parameter a gradient of 0, in all processes: the batch contributes
            nothing, while momentum and weight decay go on. ``'ignore'`` lets it pass.
        most_in_a_row: After so many skipped steps in a row it stops all the same: the weights are broken, not a batch.

    Raises:
        ValueError: ``on_nonfinite`` is something else.
    """

    def __init__(self, on_nonfinite: str = 'stop', most_in_a_row: int = 10) -> None:
        if on_nonfinite not in ('stop', 'skip', 'ignore'):
            raise ValueError(f"on_nonfinite must be 'stop', 'skip' or 'ignore', found {on_nonfinite!r}")
        self.on_nonfinite, self.most_in_a_row, self.skipped = on_nonfinite, most_in_a_row, 0
        self._before: list[tuple[Tensor, Tensor]] = []

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Remembers the buffers of a model while its losses are computed and judged; only ``'skip'`` needs them.

        Args:
            model: The model that the losses are of. Parameters are not written by a forward pass.
        """
        if self.on_nonfinite == 'skip':
            self._before = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
        try:
            yield
        finally:
            self._before = []

    def __call__(self, losses: dict[str, Any], samples: Sequence, parameters: Iterable[nn.Parameter]) -> dict[str, Any]:
        """Returns the losses as they are, or what stands for them if the step is skipped.

        Raises:
            ValueError: A term is not finite, and the step is not to be skipped.
        """
        if self.on_nonfinite == 'ignore':
            return losses
        finite = {name: _finite(value) for name, value in losses.items() if 'loss' in name}
        everywhere = torch.stack(list(finite.values())).all().float()
        all_reduce(everywhere, op='min')
        if everywhere:
            self.skipped = 0
            return losses
        message = _describe([name for name, ok in finite.items() if not ok], samples)
        self.skipped += 1
        if self.on_nonfinite == 'stop' or self.skipped > self.most_in_a_row:
            raise ValueError(
                f'{message} Lower the learning rate or the weight of that term, clip the gradients '
                "(optim_wrapper.clip_grad) or, if it is a rare batch, set on_nonfinite='skip' in the model."
            )
        print_log(f'{message} The batch is left out.', 'current')
        self._put_back()
        return dict(loss_skipped=sum(p.sum() * 0 for p in parameters if p.requires_grad))

    @torch.no_grad()
    def _put_back(self) -> None:
        for buffer, before in self._before:
            buffer.copy_(before)


def _finite(value: Any) -> Tensor:
    terms = value if isinstance(value, (list, tuple)) else [value]
    return torch.stack([term.detach().float().isfinite().all() for term in terms]).all()


def _describe(terms: list[str], samples: Sequence) -> str:
    iteration = MessageHub.get_current_instance().get_info('iter', None)
    where = '' if iteration is None else f' at iteration {iteration}'
    if not terms:
        return f'a loss of another process is not finite{where}.'
    return f'not finite{where}: {", ".join(terms)}. The images: {[_image_name(sample) for sample in samples]}.'


def _image_name(sample: Any) -> Any:
    found = [getattr(sample, key, None) for key in ('img_path', 'img_id', 'sample_idx')]
    return next((name for name in found if name is not None), 'unnamed')
