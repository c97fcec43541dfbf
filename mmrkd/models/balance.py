"""Weights that set themselves: a term is given its share of the gradient on the student's features."""

import math
import numbers
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Optional

import torch
from mmengine.dist import all_reduce
from mmengine.logging import print_log
from torch import Tensor, nn

from mmrkd.models.gradient_shares import Patterns, Point, measure, terms_of

AUTO = 'auto'


@dataclass(frozen=True)
class BalanceRequest:
    """What the config of a method asks for.

    Attributes:
        share: Of the gradient of the task loss, see :class:`Balance`; above 0.
        steps: How many training batches are measured; at least 1.
        weights: Those that are ``'auto'``, each of which gets the share. Empty: all that are not 0 get it together.
    """

    share: float = 0.1
    steps: int = 20
    weights: tuple[str, ...] = ()

    @classmethod
    def of(cls, cfg: Mapping[str, Any], weights: Collection[str]) -> Optional['BalanceRequest']:
        """Reads ``balance`` and the weights that are ``'auto'`` in a method's config; ``None`` if it has neither.

        Args:
            cfg: Config of a method. ``balance`` is a share, ``'auto'`` for the default, or ``dict(share=, steps=)``.
            weights: Names of the weights that the method declares.

        Raises:
            TypeError: ``balance`` is something else.
            ValueError: A number is out of range.
        """
        asked, own = cfg.get('balance'), tuple(name for name in weights if is_auto(cfg.get(name)))
        if asked is None and not own:
            return None
        if asked is None or is_auto(asked):
            asked = {}
        elif _is_number(asked):
            asked = dict(share=asked)
        if not isinstance(asked, Mapping) or not set(asked) <= {'share', 'steps'}:
            raise TypeError(
                f"balance={asked!r}: expected a share such as 0.1, 'auto' for {cls.share}, or dict(share=0.1, steps=20)"
            )
        request = cls(**asked, weights=own)
        if not _is_number(request.share) or not 0 < request.share < math.inf:
            raise ValueError(f'balance: share must be a number above 0 (a weight of 0 is off), found {request.share!r}')
        if not isinstance(request.steps, numbers.Integral) or request.steps is True or request.steps < 1:
            raise ValueError(f'balance: steps must be a whole number of at least 1, found {request.steps!r}')
        return request


def is_auto(value: Any) -> bool:
    """Whether a value of a config is the text that stands for a number to be found."""
    return isinstance(value, str) and value == AUTO


class Balance(nn.Module):
    r"""Finds factors for the weights of one method, so that its terms have a given share of the gradient.

    The *share* of a term t in a training batch is the ratio of two gradient norms on the same features:

    .. math:: s(t) = \frac{\| \partial (w\,t) / \partial F_t \|_2}{w_{task} \| \partial L_{task} / \partial F_t \|_2}

    F are the features of the student that the method may read: what the adapter's ``extract`` gave (all levels, and
    all views that the method asked for) and the outputs of its ``student_taps``. :math:`F_t \subseteq F` are those
    that t depends on, in any view; each norm is taken over all their elements together, in float32.
    :math:`L_{task}` is the sum of the student's own losses. :math:`w_{task}` is the weight that they are trained with
    at full strength (``w_task``); where they are off, in some phases or by ``w_task=0``, it counts as 1. A schedule of
    the method (:attr:`DistillMethod.scale`) is not part of the share: it multiplies what was set. The share of a
    training is the *median* over the first K batches in which the term is computed.

    The factor of an ``'auto'`` weight is the wanted share over the median. Without such a weight all weights of the
    method that are not 0 have one factor, that of the share of their sum: they keep their ratios. It is in force from
    the first batch on, then as the median of what has been seen so far (the weight in the config would let the first
    steps of an untuned term wreck the student); after K batches it is logged and never moves again. A batch in which a
    norm is 0 or not finite counts but says nothing; a term that says nothing in all K, for one that trains a branch and
    not the student, keeps its weight, and a warning says so. What is first computed later (another phase) is measured
    then.

    Under several processes the squares of the norms are averaged: that is the share over the whole batch, and the same
    in each process. All state is in buffers, so that a training resumes in the middle of measuring.

    Gradient contract: a factor is a number; no gradient flows through it.

    Args:
        request: What is asked for.
        patterns: Weight -> patterns of its loss terms, for the weights that are not 0.
        values: Weight -> its value in the method.
        name: Of the method, for the log.

    Attributes:
        shares: What was measured at a factor of 1, ``(weights, K)``; 0 where a batch says nothing.
        seen: Batches measured, ``(weights,)``.
        factors: What the terms of each weight are multiplied by, ``(weights,)``.
    """

    shares: Tensor
    seen: Tensor
    factors: Tensor

    def __init__(
        self, request: BalanceRequest, patterns: Mapping[str, Patterns], values: Mapping[str, float], name: str
    ) -> None:
        super().__init__()
        self.request, self.name = request, name
        self.patterns = {weight: patterns[weight] for weight in request.weights or patterns}
        self.values = {weight: values[weight] for weight in self.patterns}
        self.register_buffer('shares', torch.zeros(len(self.patterns), request.steps))
        self.register_buffer('seen', torch.zeros(len(self.patterns), dtype=torch.long))
        self.register_buffer('factors', torch.ones(len(self.patterns)))
        self._read: Optional[tuple] = None

    @property
    def weights(self) -> dict[str, float]:
        """The weights as they are now: those of the method times their factors."""
        return {weight: self.values[weight] * f for weight, f in zip(self.patterns, self._known()[1])}

    def forward(self, losses: dict[str, Any], task: dict[str, Any], points: Sequence[Point], w_task: float) -> dict:
        """Returns the terms of a method with their factors, after measuring them where that is due.

        Args:
            losses: What :meth:`DistillMethod.losses` returned.
            task: The student's own losses, unweighted.
            points: F, a tuple for one feature in several views; those that need no gradient are left out.
            w_task: Weight of the student's own losses at full strength.
        """
        terms = terms_of(losses, self.patterns)
        due = self._due(terms) if self.training and torch.is_grad_enabled() else []
        if due:
            groups, together = [list(terms.values())[i] for i in due], not self.request.weights
            shares = measure(groups, task, points, w_task, with_sum=together)
            self._record(due, [shares[-1] if own else 0.0 for own in shares[:-1]] if together else shares)
        factors = self._known()[1]
        scaled = {key: factor for own, factor in zip(terms.values(), factors) for key in own}
        return {key: _times(value, scaled.get(key, 1.0)) for key, value in losses.items()}

    def _due(self, terms: dict[str, dict]) -> list[int]:
        """Weights that are to be measured in this batch, the same in every process: a term of any of them counts."""
        unfinished = [seen < self.request.steps for seen in self._known()[0]]
        if not any(unfinished):
            return []
        present = torch.tensor([float(bool(own)) for own in terms.values()], device=self.seen.device)
        all_reduce(present, op='max')
        return [i for i, there in enumerate(present.tolist()) if there and unfinished[i]]

    @torch.no_grad()
    def _record(self, due: Sequence[int], shares: Sequence[float]) -> None:
        done = []
        for i, share in zip(due, shares):
            step = int(self.seen[i])
            self.shares[i, step] = share
            known = [s for s in self.shares[i, : step + 1].tolist() if s > 0]
            self.factors[i] = self.request.share / median(known) if known else 1.0
            self.seen[i] = step + 1
            done += [i] * (step + 1 == self.request.steps)
        for i in done:
            self._tell(i)

    def _tell(self, index: int) -> None:
        weight, (share, steps) = list(self.patterns)[index], (self.request.share, self.request.steps)
        said = sum(s > 0 for s in self.shares[index].tolist())
        if not said:
            text = f'{self.name}: {weight} stays at {self.values[weight]:.4g}: '
            text += f'its term had no gradient on the features of the student in {steps} steps, so it has no share'
            return print_log(text, 'current', 30)
        together = '' if self.request.weights or len(self.patterns) == 1 else ', together with the others of the method'
        text = f'{self.name}: {weight} = {self.weights[weight]:.4g} from now on, for {share:g} of the gradient of the '
        print_log(f'{text}task loss on the features{together} (median of {said} steps)', 'current')

    def _known(self) -> tuple[list[int], list[float]]:
        """The buffers as numbers, read only after somebody wrote them: a GPU has to finish all its work for that."""
        if self._read is None or self._read[0] is not self.seen or self._read[1] != self.seen._version:
            self._read = (self.seen, self.seen._version, (self.seen.tolist(), self.factors.tolist()))
        return self._read[2]


def build_balance(method: Any) -> Optional[Balance]:
    """Returns what balances a method whose config asks for it; ``None`` if it does not, or if all weights are 0.

    Args:
        method: A :class:`DistillMethod`, set up.

    Raises:
        TypeError: A weight is a text, because the method was not built from a config.
        ValueError: The method declares no weights.
    """
    values = {weight: getattr(method, weight) for weight in method.weights}
    texts = {weight: value for weight, value in values.items() if isinstance(value, str)}
    if texts:
        raise TypeError(f"{method.name}: {texts}: 'auto' is for configs, dict(type=...), and not for a built method")
    request = method.balance_request
    if request is None:
        return None
    if not values:
        raise ValueError(f'{method.name} declares no weights (DistillMethod.weights), so that balance has none to set')
    left = {weight: value for weight, value in values.items() if value}
    wanted = tuple(weight for weight in request.weights if weight in left)
    if not left or (request.weights and not wanted):
        return None
    patterns = {weight: method.weights[weight] for weight in left}
    return Balance(replace(request, weights=wanted), patterns, left, method.name)


def _times(value: Any, factor: float) -> Any:
    if factor == 1.0:
        return value
    return [part * factor for part in value] if isinstance(value, (list, tuple)) else value * factor


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
