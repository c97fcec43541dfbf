"""Per-channel standardisation by the statistics of one fixed model."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import all_gather
from torch import Tensor, nn

from mmrkd.structures import Features

LEAST_SHARE = 0.01
LEAST_DEVIATION = 1e-3


class ChannelStandardizer(nn.Module):
    r"""Maps features to zero mean and unit variance in each channel of each level, and back.

    The mean and variance are those of the *teacher's* features, averaged over everything seen so far. The teacher is
    frozen, so they settle quickly, and both sides of a comparison go through the same fixed map: an error of 1 means
    one standard deviation of that channel. :meth:`denormalize` brings an estimate back to the scale that the teacher's
    head knows, also at inference, where there is no teacher to take statistics from.

    Mean and variance are updated by their deviations (Chan's form of Welford's update): the mean of the squares minus
    the square of the mean loses a deviation of 0.5 beside a mean of 1000 in float32. What is not finite is never
    folded in: a process whose batch has such a value is left out of that update, with all its levels.

    A channel whose deviation d is less than ``r = LEAST_SHARE`` of the mean deviation m of its level is as good as
    dead, and its first cell would outweigh everything else. The less it deviates the less it counts, then: it is
    measured by :math:`\min(m, (r m)^2 / d)`, which is continuous at d = r m, and m for a channel that never moved. No
    channel is divided by less than ``LEAST_DEVIATION``.

    Statistics are buffers, ``(C_l,)`` for each level, and never receive gradients. All processes go through the same
    map. An update costs them one collective, and never waits for the device.

    Args:
        channels: Channels of each level.
        max_updates: After so many updates the statistics stay as they are. Defaults to 1000.
    """

    def __init__(self, channels: Sequence[int], max_updates: int = 1000) -> None:
        super().__init__()
        self.num_levels = len(channels)
        self.max_updates = max_updates
        for level, width in enumerate(channels):
            self.register_buffer(f'mean{level}', torch.zeros(width))
            self.register_buffer(f'variance{level}', torch.ones(width))
        self.register_buffer('updates', torch.zeros((), dtype=torch.long))
        self._known, self._since = 0, 0  # updates that are certain, and those asked for since then

    @torch.no_grad()
    def update(self, feats: Sequence[Tensor]) -> None:
        """Folds one batch ``(N, C_l, ...)`` of each level into the running statistics."""
        if self._complete():
            return
        self._since += 1
        own = [moment for feat in feats for moment in _moments(feat)]
        everyone = torch.stack(all_gather(torch.cat(own)))
        finite = everyone.isfinite().all(1)
        folded = finite.any() & (self.updates < self.max_updates)
        self.updates += folded
        rate = folded / self.updates.clamp(min=1)
        shares = (finite / finite.sum().clamp(min=1)).unsqueeze(1)
        moments = torch.where(finite.unsqueeze(1), everyone, 0).split([len(moment) for moment in own], 1)
        for level in range(self.num_levels):
            means, variances = moments[2 * level : 2 * level + 2]
            batch_mean = (shares * means).sum(0)
            batch_variance = (shares * (variances + (means - batch_mean).square())).sum(0)
            self._fold(level, batch_mean, batch_variance, rate)

    def _complete(self) -> bool:
        """Whether there were enough updates; the device is asked only when it may have come to that.

        The buffer decides. Batches that are not finite, and steps that were undone, are not in it, but count here.
        """
        if self._known < self.max_updates <= self._known + self._since:
            self._known, self._since = int(self.updates), 0
        return self._known >= self.max_updates

    def _fold(self, level: int, batch_mean: Tensor, batch_variance: Tensor, rate: Tensor) -> None:
        mean, variance = getattr(self, f'mean{level}'), getattr(self, f'variance{level}')
        batch_mean, batch_variance, rate = batch_mean.to(mean), batch_variance.to(variance), rate.to(mean)
        apart = batch_mean - mean
        mean += rate * apart
        variance += rate * (batch_variance - variance) + rate * (1 - rate) * apart.square()

    def _mean_std(self, level: int, feat: Tensor) -> Sequence[Tensor]:
        mean, std = getattr(self, f'mean{level}'), getattr(self, f'variance{level}').clamp(min=0).sqrt()
        typical = std.mean()
        dead = torch.minimum(typical, (LEAST_SHARE * typical).square() / std.clamp(min=1e-12))
        std = torch.maximum(std, dead).clamp(min=LEAST_DEVIATION)
        shape = (1, -1) + (1,) * (feat.dim() - 2)
        return mean.view(shape), std.view(shape)

    def normalize(self, feats: Sequence[Tensor]) -> Features:
        """Returns ``(f - mean) / std`` of each level, in float32."""
        out = []
        for level, feat in enumerate(feats):
            mean, std = self._mean_std(level, feat)
            out.append((feat.float() - mean) / std)
        return tuple(out)

    def denormalize(self, feats: Sequence[Tensor]) -> Features:
        """Inverse of :meth:`normalize`."""
        out = []
        for level, feat in enumerate(feats):
            mean, std = self._mean_std(level, feat)
            out.append(feat * std + mean)
        return tuple(out)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Loads, too, what earlier versions saved: the mean of the squares instead of the variance."""
        for level in range(self.num_levels):
            square, mean = state_dict.get(f'{prefix}square{level}'), state_dict.get(f'{prefix}mean{level}')
            if square is not None and mean is not None:
                variance = (square.double() - mean.double().square()).clamp(min=0).to(square)
                state_dict[f'{prefix}variance{level}'] = variance
                del state_dict[f'{prefix}square{level}']
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._known, self._since = 0, self.max_updates  # the device is asked at the next update


def _moments(feat: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and variance ``(C,)`` over all but the channels, in float32."""
    variance, mean = torch.var_mean(feat.float(), [0, *range(2, feat.dim())], correction=0)
    return mean, variance
