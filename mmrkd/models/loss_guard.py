"""Losses that are not finite are found before they reach a checkpoint."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Callable, Optional

import torch
from mmengine.dist import all_reduce
from mmengine.logging import MessageHub, print_log
from torch import Tensor, nn

ADVICE = (
    'Lower the learning rate or the weight of that term, clip the gradients (optim_wrapper.clip_grad) or, if it is a '
    "rare batch, set on_nonfinite='skip' in the model."
)


class LossGuard:
    """Looks at every loss term of a step; one that is NaN or infinite stops the training or leaves the batch out.

    What can wait, waits. To *stop*, nobody needs to know at once: the flags of all terms go to the host beside the
    work of the device and are read one step late, when they have long arrived, so that no step waits for the device.
    The message still names the term, the iteration and the images of the step that it was. Until it is read, the
    weights may have moved by that step; but nothing is saved or evaluated, and no epoch begins, before
    :meth:`settle` has read what is left. On a CPU there is nothing to wait for: it is read before the weights move.
    Each process looks at its own losses, without a word to the others; the launcher ends those when one ends.

    To *skip* a step, its losses must be exchanged before the weights move, in all processes: this costs a wait for the
    device and one reduction of a single number, each step, and cannot be deferred.

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
        late: Whether ``'stop'`` reads one step late; ``None`` does so on a GPU. Defaults to None.

    Raises:
        ValueError: ``on_nonfinite`` is something else.
    """

    def __init__(self, on_nonfinite: str = 'stop', most_in_a_row: int = 10, late: Optional[bool] = None) -> None:
        if on_nonfinite not in ('stop', 'skip', 'ignore'):
            raise ValueError(f"on_nonfinite must be 'stop', 'skip' or 'ignore', found {on_nonfinite!r}")
        self.on_nonfinite, self.most_in_a_row, self.skipped = on_nonfinite, most_in_a_row, 0
        self.late = late
        self._before: list[tuple[Tensor, Tensor]] = []
        self._pending: Optional[Callable[[], Optional[str]]] = None

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
            ValueError: A term of this step, or (late) of the one before, is not finite, and it is not to be skipped.
        """
        names = [name for name in losses if 'loss' in name]
        if self.on_nonfinite == 'ignore' or not names:
            return losses
        finite = torch.stack([_finite(losses[name]) for name in names])
        if self.on_nonfinite == 'skip':
            return self._skip(losses, names, finite, samples, parameters)
        late = finite.is_cuda if self.late is None else self.late
        before, self._pending = self._pending, _verdict(names, finite, samples)
        if late:
            self._stop_if(before, ' It was found one step later: go on from the last checkpoint.')
        else:
            self.settle()
        return losses

    def settle(self) -> None:
        """Reads what was not yet read; before anything is saved or evaluated, and before an epoch begins.

        Raises:
            ValueError: A term of the last step is not finite.
        """
        before, self._pending = self._pending, None
        self._stop_if(before)

    def _stop_if(self, verdict: Optional[Callable[[], Optional[str]]], remark: str = '') -> None:
        message = None if verdict is None else verdict()
        if message is not None:
            self._pending = None
            raise ValueError(f'{message}{remark} {ADVICE}')

    def _skip(
        self, losses: dict, names: list[str], finite: Tensor, samples: Sequence, parameters: Iterable[nn.Parameter]
    ) -> dict[str, Any]:
        everywhere = finite.all().float()
        all_reduce(everywhere, op='min')
        if everywhere:
            self.skipped = 0
            return losses
        message = _describe(names, finite.tolist(), _where(), _names(samples))
        message = message or f'a loss of another process is not finite{_where()}.'
        self.skipped += 1
        if self.skipped > self.most_in_a_row:
            raise ValueError(f'{message} {ADVICE}')
        print_log(f'{message} The batch is left out.', 'current')
        self._put_back()
        return dict(loss_skipped=sum(p.sum() * 0 for p in parameters if p.requires_grad))

    @torch.no_grad()
    def _put_back(self) -> None:
        for buffer, before in self._before:
            buffer.copy_(before)


def _verdict(names: list[str], finite: Tensor, samples: Sequence) -> Callable[[], Optional[str]]:
    """Sends the flags to the host; what is returned says, once they are there, what is wrong with that step.

    A function, and not an object with an event in it: copies of a distiller are made of it as it is.
    """
    where, images, arrived = _where(), _names(samples), None
    if finite.is_cuda:
        flags = torch.empty_like(finite, device='cpu', pin_memory=True).copy_(finite, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
    else:
        flags = finite

    def verdict() -> Optional[str]:
        if arrived is not None:
            arrived.synchronize()
        return _describe(names, flags.tolist(), where, images)

    return verdict


def _finite(value: Any) -> Tensor:
    terms = value if isinstance(value, (list, tuple)) else [value]
    return torch.stack([term.detach().float().isfinite().all() for term in terms]).all()


def _describe(names: list[str], finite: list[bool], where: str, images: list) -> Optional[str]:
    terms = [name for name, ok in zip(names, finite) if not ok]
    return f'not finite{where}: {", ".join(terms)}. The images: {images}.' if terms else None


def _where() -> str:
    iteration = MessageHub.get_current_instance().get_info('iter', None)
    return '' if iteration is None else f' at iteration {iteration}'


def _names(samples: Sequence) -> list:
    """Names of the images; the batch of mmyolo as a whole has none."""
    return [_image_name(sample) for sample in samples]


def _image_name(sample: Any) -> Any:
    found = [getattr(sample, key, None) for key in ('img_path', 'img_id', 'sample_idx')]
    return next((name for name in found if name is not None), 'unnamed')
