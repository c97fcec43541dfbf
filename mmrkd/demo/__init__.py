"""A detector that was distilled, to be looked at: a student of the quick start, with its weights."""

import contextlib
import io
import os.path as osp
from typing import Optional

import cv2
import numpy as np
from mmengine.config import ConfigDict
from mmengine.dataset import Compose
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from torch import nn

from mmrkd.checkpoint import load_checkpoint_file, load_strictly
from mmrkd.datasets import DIGIT_CLASSES, digit_scene
from mmrkd.registry import MODELS, drop_empty_scopes
from mmrkd.visualization import Found, detect, draw_boxes

CONFIG = 'mmrkd::baselines/retinanet-r18w8_1xb8-8e_digits.py'
CHECKPOINT = osp.join(osp.dirname(__file__), 'era_retinanet-r18w8_digits.pth')


def load_demo() -> tuple[nn.Module, ConfigDict]:
    """Returns the detector in evaluation mode, and its config. The weights lie in half precision."""
    cfg = get_config(CONFIG)
    drop_empty_scopes(cfg._cfg_dict)
    init_default_scope('mmdet')
    cfg.model.test_cfg.nms.class_agnostic = True  # two digits have no place in common
    model = MODELS.build(cfg.model)
    load_strictly(model, load_checkpoint_file(CHECKPOINT)['state_dict'], CHECKPOINT)
    return model.eval(), cfg


def show(image: Optional[str], out: str, seed: int = 0, score_thr: float = 0.4) -> str:
    """Draws what the detector finds in an image, or in a scene that is made, where the truth is drawn beside it.

    Args:
        image: File. ``None``: a scene of digits that the detector has never seen.
        out: PNG to write.
        seed: Of that scene.
        score_thr: Detections below this score are left out.

    Returns:
        What was found, a line each.

    Raises:
        FileNotFoundError: There is no such image, or it is none.
    """
    pixels, truth = _scene(seed) if image is None else (_read(image), None)
    with contextlib.redirect_stdout(io.StringIO()):  # libraries say what they could not import
        model, cfg = load_demo()
    pipeline = [t for t in cfg.test_dataloader.dataset.pipeline if not t['type'].startswith('Load')]
    pipeline[-1] = dict(type='PackDetInputs', meta_keys=('ori_shape', 'img_shape', 'scale_factor'))
    item = Compose(pipeline)(dict(img=pixels, img_shape=pixels.shape[:2], ori_shape=pixels.shape[:2]))
    found = detect(model, item, score_thr)
    seen = item['inputs'].permute(1, 2, 0).numpy()[..., ::-1]
    _draw(seen, found, truth, out)
    lines = [
        f'{DIGIT_CLASSES[label]}  {score:.2f}  at {", ".join(f"{side:.0f}" for side in box)}'
        for box, label, score in zip(found.boxes, found.labels, found.scores)
    ]
    return '\n'.join(lines) or f'nothing above a score of {score_thr}'


def _scene(seed: int) -> tuple[np.ndarray, Found]:
    image, labels, boxes = digit_scene(seed)
    corners = [[x, y, x + width, y + height] for x, y, width, height in boxes]
    return image, Found(np.array(corners), np.array(labels), np.ones(len(labels)))


def _read(path: str) -> np.ndarray:
    image = cv2.imread(path)
    if image is None:
        raise FileNotFoundError(f'{path!r} is no image that can be read')
    return image


def _draw(image: np.ndarray, found: Found, truth: Optional[Found], out: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = {'found': found} if truth is None else {'digits': truth, 'found': found}
    figure = Figure(figsize=(4 * len(columns), 4.2), dpi=130, layout='constrained')
    FigureCanvasAgg(figure)
    for axes, (title, boxes) in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns.items()):
        draw_boxes(axes, image, boxes, DIGIT_CLASSES, scores=boxes is found)
        axes.set_title(title)
    figure.savefig(out)
