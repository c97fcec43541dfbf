"""What several detectors see in the same images, side by side with the truth."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn


def compare_detections(
    models: dict[str, nn.Module], dataset, indices: Sequence[int], path: str, score_thr: float = 0.4
) -> None:
    """Draws a row for each image: ground truth, then the detections of each model.

    Args:
        models: Title -> trained mmdet detector (or distiller), in evaluation mode.
        dataset: mmdet dataset in test mode.
        indices: Which images.
        path: PNG to write.
        score_thr: Detections below this score are not drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = ['ground truth', *models]
    figure = Figure(figsize=(2.6 * len(columns), 2.7 * len(indices)), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(indices), len(columns), squeeze=False)
    classes = dataset.metainfo['classes']
    for row, index in zip(grid, indices):
        item = dataset[index]
        image = item['inputs'].permute(1, 2, 0).numpy()[..., ::-1]
        truth = item['data_samples'].gt_instances
        _draw(row[0], image, truth.bboxes, truth.labels, None, classes, columns[0])
        for axes, (title, model) in zip(row[1:], models.items()):
            found = _detect(model, item, score_thr)
            _draw(axes, image, found.bboxes, found.labels, found.scores, classes, title)
    figure.savefig(path)


@torch.no_grad()
def _detect(model: nn.Module, item: dict, score_thr: float):
    batch = dict(inputs=[item['inputs'].clone()], data_samples=[item['data_samples'].clone()])
    batch['data_samples'][0].set_metainfo(dict(scale_factor=(1.0, 1.0)))  # boxes on the image as it is drawn
    found = model.test_step(batch)[0].pred_instances
    return found[found.scores > score_thr].cpu().numpy()


def _draw(axes, image: np.ndarray, boxes, labels, scores, classes: Sequence[str], title: str) -> None:
    axes.imshow(image)
    axes.set_title(title, fontsize=9)
    axes.axis('off')
    boxes = getattr(boxes, 'tensor', boxes)
    for number, ((x1, y1, x2, y2), label) in enumerate(zip(np.asarray(boxes), np.asarray(labels))):
        axes.add_patch(_rectangle(x1, y1, x2, y2, colour := f'C{int(label) % 10}'))
        text = classes[int(label)] + ('' if scores is None else f' {scores[number]:.2f}')
        axes.text(x1, y1 - 1, text, fontsize=6, color='white', bbox=dict(facecolor=colour, pad=0.5, linewidth=0))


def _rectangle(x1: float, y1: float, x2: float, y2: float, colour: str):
    from matplotlib.patches import Rectangle

    return Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=1.2)
