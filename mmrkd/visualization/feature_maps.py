"""Where features are strong: heat maps over the image."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch.nn.functional as F
from torch import Tensor


def energy(feature: Tensor) -> Tensor:
    """Mean over the channels of the squares of a map: ``(C, H, W)`` to ``(H, W)``."""
    return feature.detach().float().square().mean(dim=0)


def draw_feature_maps(
    image: np.ndarray, maps: Mapping[str, Sequence[Tensor]], levels: Sequence[str] = ()
) -> np.ndarray:
    """Draws the energy of maps over an image: a row for each level, a column for each kind of map.

    In a row all have one scale, that of its strongest cell, so that what is left over is seen to be little; the number
    above each is its mean.

    Args:
        image: ``(H, W, 3)``, RGB, 0 to 255.
        maps: Title -> one map ``(C, h, w)`` for each level.
        levels: Names of the levels. Defaults to their numbers.

    Returns:
        The picture, ``(H', W', 3)`` of ``uint8``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(next(iter(maps.values())))
    figure = Figure(figsize=(1.9 * (len(maps) + 1), 2.0 * count), dpi=100, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    grid = figure.subplots(count, len(maps) + 1, squeeze=False)
    for level, row in enumerate(grid):
        _show(row[0], image, levels[level] if level < len(levels) else f'level {level}')
        energies = {title: energy(features[level]) for title, features in maps.items()}
        top = max(float(e.max()) for e in energies.values()) or 1.0
        for axes, (title, values) in zip(row[1:], energies.items()):
            _show(axes, image, f'{title}: {float(values.mean()):.3g}')
            heat = F.interpolate(values[None, None], image.shape[:2], mode='bilinear', align_corners=False)[0, 0]
            axes.imshow(heat.cpu().numpy(), cmap='inferno', vmin=0, vmax=top, alpha=0.65)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _show(axes, image: np.ndarray, title: str) -> None:
    axes.imshow(image)
    axes.set_title(title, fontsize=8)
    axes.axis('off')
