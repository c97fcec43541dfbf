"""Weighs the pixels of a decode head's own loss without touching the head: it asks its sampler, and takes any."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple, Optional

import torch
from torch import Tensor, nn

from mmrkd.adapters.reuse import hiding

CROSS_ENTROPY = 'mmseg.models.losses.cross_entropy_loss.CrossEntropyLoss'


class PixelLoss(NamedTuple):
    """What the loss of a head is computed of.

    Attributes:
        logits: ``(N, K, H, W)``, enlarged to the size of the labels. Detached.
        labels: ``(N, H, W)``.
        valid: Pixels that are not ignored, ``(N, H, W)``.
        class_weights: What the loss multiplies each pixel by because of its class, ``(N, H, W)``; 0 if it is ignored.
        plain: What the entropy of each pixel is multiplied by in the loss as it is, ``(N, H, W)``.
        main: Whether this is the decode head that predicts, and no auxiliary one.
    """

    logits: Tensor
    labels: Tensor
    valid: Tensor
    class_weights: Tensor
    plain: Tensor
    main: bool


def obstacle_of(head: nn.Module) -> Optional[str]:
    """Returns why the pixels of a head's loss cannot be weighed; ``None`` if they can."""
    name, loss = type(head).__name__, getattr(head, 'loss_decode', None)
    if isinstance(loss, nn.ModuleList) and len(loss) == 1:
        loss = loss[0]
    names = [f'{base.__module__}.{base.__qualname__}' for base in type(loss).__mro__]
    if CROSS_ENTROPY not in names or loss.use_sigmoid or loss.use_mask or loss.reduction != 'mean':
        found = loss if not isinstance(loss, nn.ModuleList) else [type(own).__name__ for own in loss]
        return f'the {name} needs one CrossEntropyLoss of exclusive classes as loss_decode, found {found}'
    if getattr(head, 'sampler', None) is not None:
        kind = type(head.sampler).__name__
        return f'the {name} has a sampler of its own ({kind}), which chooses pixels already: leave it out'
    return None


@contextmanager
def weighed_heads(main: nn.Module, others: Sequence[nn.Module], weigh: Callable[[PixelLoss], Tensor]) -> Iterator[None]:
    """Puts a sampler on each head, inside one ``with`` block.

    Args:
        main: The head that predicts.
        others: The other ones.
        weigh: See :meth:`mmrkd.adapters.ModelAdapter.weighing`.

    Raises:
        ValueError: A head computed its loss without asking.
    """
    samplers = [_Sampler(main, weigh, True), *(_Sampler(head, weigh, False) for head in others)]
    with ExitStack() as stack:
        for sampler in samplers:
            stack.enter_context(hiding(sampler.head, 'sampler', sampler))
        yield
    silent = [type(sampler.head).__name__ for sampler in samplers if not sampler.asked]
    if silent:
        raise ValueError(
            f'the pixels of the losses of {silent} cannot be weighed: these heads compute them without asking a '
            'sampler. Take a model whose heads use loss_by_feat of BaseDecodeHead, or another method (KD, CWD).'
        )


class _Sampler:
    """What a head takes for mmseg's pixel sampler.

    The head multiplies the entropy of each pixel by what this returns and by the weight of its class, and divides the
    sum by a number of its own; both is undone here.
    """

    def __init__(self, head: nn.Module, weigh: Callable[[PixelLoss], Tensor], main: bool) -> None:
        self.head, self.weigh, self.main, self.asked = head, weigh, main, False

    @torch.no_grad()
    def sample(self, seg_logit: Tensor, seg_label: Tensor) -> Tensor:
        """Returns ``(N, H, W)``."""
        self.asked = True
        loss = self.head.loss_decode
        loss = loss[0] if isinstance(loss, nn.ModuleList) else loss
        labels = seg_label.squeeze(1).long()
        valid = labels != self.head.ignore_index
        classes = torch.ones_like(labels, dtype=seg_logit.dtype if seg_logit.dtype == torch.float64 else torch.float32)
        if loss.class_weight is not None:
            classes = classes.new_tensor(loss.class_weight)[labels.where(valid, labels.new_zeros(()))]
        classes = classes * valid
        if loss.class_weight is not None:
            divisor = classes.sum()
        else:
            divisor = valid.sum() if loss.avg_non_ignore else labels.numel()
        plain = classes / max(divisor, 1) if isinstance(divisor, int) else classes / divisor.clamp(min=1e-12)
        wanted = self.weigh(PixelLoss(seg_logit.detach(), labels, valid, classes, plain, self.main))
        return torch.where(classes > 0, wanted * divisor / classes.clamp(min=1e-12), wanted.new_zeros(()))
