"""Per-channel standardisation by the statistics of one fixed model."""

from collections.abc import Sequence

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from mmrkd.structures import Features


class ChannelStandardizer(nn.Module):
    r"""Maps features to zero mean and unit variance in each channel of each level, and back.

    The mean and variance are those of the *teacher's* features, averaged over everything seen so far. The teacher is
    frozen, so they settle quickly, and both sides of a comparison go through the same fixed map: an error of 1 means
    one standard deviation of that channel. :meth:`denormalize` brings an estimate back to the scale that the teacher's
    head knows, also at inference, where there is no teacher to take statistics from.

    Statistics are buffers, ``(C_l,)`` for each level, and never receive gradients.

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
            self.register_buffer(f'square{level}', torch.ones(width))
        self.register_buffer('updates', torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def update(self, feats: Sequence[Tensor]) -> None:
        """Folds one batch ``(N, C_l, ...)`` of each level into the running averages."""
        if self.updates >= self.max_updates:
            return
        self.updates += 1
        rate = 1.0 / float(self.updates)
        for level, feat in enumerate(feats):
            values = feat.float().transpose(0, 1).flatten(1)
            for name, batch in (('mean', values.mean(1)), ('square', values.square().mean(1))):
                all_reduce(batch, op='mean')  # every process goes through the same map
                average = getattr(self, f'{name}{level}')
                average.lerp_(batch.to(average), rate)

    def _mean_std(self, level: int, feat: Tensor) -> Sequence[Tensor]:
        mean, square = getattr(self, f'mean{level}'), getattr(self, f'square{level}')
        shape = (1, -1) + (1,) * (feat.dim() - 2)
        return mean.view(shape), (square - mean.square()).clamp(min=1e-6).sqrt().view(shape)

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
