"""What several detectors see in the same images, side by side with the truth, and where they differ."""

from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np
import torch
from torch import nn

from mmrkd.visualization.differences import Differences, Found, compare_found, summary

SAME, GAINED, RENAMED, LOST, TRUTH = '#9aa5b1', '#12b886', '#f59f00', '#e03131', '#1c7ed6'
RIGHT, WRONG = '\N{CHECK MARK}', '\N{BALLOT X}'


def compare_detections(
    models: dict[str, nn.Module],
    dataset: Any,
    indices: Sequence[int],
    path: str,
    score_thr: float = 0.4,
    reference: Optional[str] = None,
) -> dict[str, str]:
    """Draws a row for each image: ground truth, then the detections of each model.

    With a reference, each other model shows how it differs from it: green is what only it finds, red and dashed what
    it lost, orange what is there under another class (overlap of at least 0.5), grey what both have. A tick behind a
    score says that there is such an object.

    Args:
        models: Title -> trained mmdet detector (or distiller), in evaluation mode.
        dataset: mmdet dataset in test mode.
        indices: Which images.
        path: PNG to write.
        score_thr: Detections below this score are not drawn.
        reference: Title of the model that the others are compared with. Defaults to None: boxes have the colours of
            their classes.

    Returns:
        Title -> how the model differs from the reference, in words; empty without a reference.
    """
    items = [dataset[index] for index in indices]
    truths = [_truth(item) for item in items]
    found = {title: [detect(model, item, score_thr) for item in items] for title, model in models.items()}
    compared = {}
    if reference is not None:
        others = {title: results for title, results in found.items() if title != reference}
        compared = {
            t: [compare_found(*pair) for pair in zip(results, found[reference])] for t, results in others.items()
        }
    texts = {title: summary(each) for title, each in compared.items()}
    columns = ['ground truth', *models]
    figure, grid = _canvas(len(indices), len(columns), reference)
    classes = dataset.metainfo['classes']
    for number, (row, item) in enumerate(zip(grid, items)):
        image = item['inputs'].permute(1, 2, 0).numpy()[..., ::-1]
        draw_boxes(row[0], image, truths[number], classes, colour=None if reference is None else TRUTH, scores=False)
        for axes, (title, results) in zip(row[1:], found.items()):
            if reference is None:
                draw_boxes(axes, image, results[number], classes)
            else:
                how = compared[title][number] if title in compared else None
                draw_differences(axes, image, results[number], found[reference][number], how, truths[number], classes)
        if number == 0:
            for axes, title in zip(row, columns):
                axes.set_title('\n'.join(filter(None, [title, texts.get(title, '')])), fontsize=9)
    figure.savefig(path)
    return texts


@torch.no_grad()
def detect(model: nn.Module, item: dict, score_thr: float) -> Found:
    """Returns what a model finds in one item of a dataset, with boxes on the image as the item has it."""
    batch = dict(inputs=[item['inputs'].clone()], data_samples=[item['data_samples'].clone()])
    batch['data_samples'][0].set_metainfo(dict(scale_factor=(1.0, 1.0)))  # boxes on the image as it is drawn
    found = model.test_step(batch)[0].pred_instances
    found = found[found.scores > score_thr].cpu().numpy()
    return Found(getattr(found.bboxes, 'tensor', found.bboxes), found.labels, found.scores)


def draw_boxes(
    axes: Any,
    image: np.ndarray,
    found: Found,
    classes: Sequence[str],
    colour: Optional[str] = None,
    scores: bool = True,
) -> None:
    """Draws boxes with class and score.

    Args:
        axes: Of matplotlib.
        image: ``(H, W, 3)``, RGB.
        found: What to draw.
        classes: Names.
        colour: Of all boxes. Defaults to None: each class has its own.
        scores: Whether to write them.
    """
    _show(axes, image)
    for box, label, score in zip(found.boxes, found.labels, found.scores):
        text = classes[int(label)] + (f' {score:.2f}' if scores else '')
        _box(axes, box, text, colour or f'C{int(label) % 10}')


def draw_differences(
    axes: Any,
    image: np.ndarray,
    found: Found,
    reference: Found,
    how: Optional[Differences],
    truth: Found,
    classes: Sequence[str],
) -> None:
    """Draws detections in the colour of how they differ from those of a reference.

    Args:
        axes: Of matplotlib.
        image: ``(H, W, 3)``, RGB.
        found: Detections.
        reference: Those of the reference, some of which may be lost.
        how: They differ; ``None`` for the reference itself.
        truth: Objects.
        classes: Names.
    """
    _show(axes, image)
    right = set(compare_found(found, truth).same)
    how = how or Differences(same=list(range(len(found.boxes))))
    colours: Mapping[int, str] = {**dict.fromkeys(how.gained, GAINED), **dict.fromkeys(how.renamed, RENAMED)}
    for index in how.lost:
        _box(axes, reference.boxes[index], f'{classes[int(reference.labels[index])]} lost', LOST, dashed=True)
    for index in sorted(range(len(found.boxes)), key=lambda i: i in colours):  # what differs lies on top
        was = f' (was {classes[int(reference.labels[how.renamed[index]])]})' if index in how.renamed else ''
        text = (
            f'{classes[int(found.labels[index])]} {found.scores[index]:.2f}{was} {RIGHT if index in right else WRONG}'
        )
        _box(axes, found.boxes[index], text, colours.get(index, SAME), wide=index in colours)


def _truth(item: dict) -> Found:
    instances = item['data_samples'].gt_instances
    boxes = getattr(instances.bboxes, 'tensor', instances.bboxes)
    return Found(np.asarray(boxes), np.asarray(instances.labels), np.ones(len(instances.labels)))


def _canvas(height: int, width: int, reference: Optional[str]) -> tuple[Any, np.ndarray]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6 * width, 2.7 * height + 0.35 * (reference is not None)), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    grid = figure.subplots(height, width, squeeze=False)
    if reference is not None:
        names = ('only here', 'lost', 'other class', f'as {reference}', 'object')
        kinds = dict(zip(names, (GAINED, LOST, RENAMED, SAME, TRUTH)))
        handles = [_rectangle((0, 0, 1, 1), colour, dashed=colour == LOST) for colour in kinds.values()]
        words = [*kinds, f'{RIGHT} right   {WRONG} wrong']
        handles.append(_rectangle((0, 0, 0, 0), 'none'))
        figure.legend(handles, words, loc='outside lower center', ncols=len(words), fontsize=8, frameon=False)
    return figure, grid


def _show(axes: Any, image: np.ndarray) -> None:
    axes.imshow(image)
    axes.axis('off')


def _box(axes: Any, box: np.ndarray, text: str, colour: str, dashed: bool = False, wide: bool = False) -> None:
    axes.add_patch(_rectangle(box, colour, dashed, 1.8 if wide else 1.2))
    style = dict(fontsize=6, color='white', bbox=dict(facecolor=colour, pad=0.5, linewidth=0))
    below = dashed  # so that the text of what is lost leaves room for that of what is there
    axes.text(box[0], box[3] + 1 if below else box[1] - 1, text, va='top' if below else 'bottom', **style)


def _rectangle(box: Sequence[float], colour: str, dashed: bool = False, width: float = 1.2) -> Any:
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2 = box
    style = '--' if dashed else '-'
    return Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=width, linestyle=style)
