"""Pictures of what a method does with the features, while it learns to do it."""

from typing import Any, Optional

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor

from mmrkd.engine.hooks.checkpoint_hooks import distiller_of
from mmrkd.engine.isolation import quiet, untouched_randomness
from mmrkd.engine.measurement import isolated_copy
from mmrkd.engine.samples import small_loader, spread
from mmrkd.models import DistillMethod
from mmrkd.registry import HOOKS
from mmrkd.structures import StudentView
from mmrkd.visualization import draw_feature_maps


@HOOKS.register_module()
class FeatureMapsHook(Hook):
    """After a validation, draws what methods show (:meth:`DistillMethod.pictures`) and logs what they measure.

    Of ERA: for each level the energy of the teacher's features, of h_0, of the residual r_1, of each D_i, and of what
    is left over; and the share of the residual that the branches explain, as the scalar ``era/residual_explained``. All
    goes through mmengine's visualiser, so every logger of the run has it. It works on a copy of the distiller and
    leaves the random states as they were: the training is the same with and without it.

    Args:
        interval: Of so many validations the last one is drawn. Defaults to 1.
        images: How many images of the validation set, evenly spread. Defaults to 2.
    """

    priority = 'VERY_LOW'

    def __init__(self, interval: int = 1, images: int = 2) -> None:
        if interval < 1 or images < 1:
            raise ValueError(f'expected interval >= 1 and images >= 1, found {interval} and {images}')
        self.interval, self.images, self.validations = interval, images, 0

    @master_only
    def after_val_epoch(self, runner: Runner, metrics: Optional[dict[str, float]] = None) -> None:
        """Draws and logs."""
        self.validations += 1
        if self.validations % self.interval or runner._train_loop is None:
            return
        step = runner.epoch if isinstance(runner._train_loop, EpochBasedTrainLoop) else runner.iter
        with untouched_randomness(), quiet(), torch.no_grad():
            self._draw(runner, step)

    def _draw(self, runner: Runner, step: int) -> None:
        distiller = isolated_copy(distiller_of(runner)).eval()
        dataset = runner.val_dataloader.dataset
        indices = spread(len(dataset), self.images)
        (batch,) = small_loader(dataset, indices, dict(runner.cfg.val_dataloader, batch_size=len(indices)))
        data = distiller.data_preprocessor(batch, False)
        numbers: dict[str, float] = {}
        for name, method in distiller.methods.items():
            if not (method.active and method.needs_teacher):
                continue
            views = _views(method, data['inputs'], data['data_samples'])
            measured = method.measurements(*views, data['data_samples'])  # of all images: one alone may not vary
            numbers.update({f'{name}/{key}': value for key, value in measured.items() if np.isfinite(value)})
            maps = {title: f for title, f in method.pictures(*views).items() if all(m.dim() == 4 for m in f)}
            for place, index in enumerate(indices if maps else ()):
                shown = {title: [m[place].cpu() for m in features] for title, features in maps.items()}
                picture = draw_feature_maps(as_image(data['inputs'][place]), shown)
                runner.visualizer.add_image(f'{name}_{index}', picture, step)  # a local backend makes no folders
        runner.visualizer.add_scalars(numbers, step)


def as_image(pixels: Tensor) -> np.ndarray:
    """Brings a normalised image ``(3, H, W)`` back to 0 .. 255, as far as its own range tells: ``(H, W, 3)``."""
    low, high = pixels.min(), pixels.max()
    scaled = (pixels - low) / (high - low).clamp(min=1e-6) * 255
    return scaled.permute(1, 2, 0).byte().cpu().numpy()


def _views(method: DistillMethod, inputs: Tensor, samples: Any) -> tuple:
    """What a method sees of some images, without taps and losses."""
    feats = method.pair.student.extract(inputs)
    own = method.pair.student_feats(feats)
    student = StudentView(inputs, own, feats, lambda: method.pair.student.head_outputs(feats))
    return student, method.pair.teacher_view(method.pair.teacher_pass(inputs, samples), own)
