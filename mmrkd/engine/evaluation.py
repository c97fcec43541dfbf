"""An evaluation on a few images, beside the run's own."""

import tempfile
from collections.abc import Sequence
from typing import Any, Optional

from mmengine.config import Config
from mmengine.evaluator import Evaluator
from torch.utils.data import Dataset

from mmrkd.engine.samples import restricted_evaluator, small_loader
from mmrkd.models import Distiller


def evaluate_on(
    distiller: Distiller,
    variant: str,
    dataset: Dataset,
    indices: Sequence[int],
    cfg: Config,
    ann_file: Optional[str] = None,
) -> tuple[dict[str, Any], bool]:
    """Evaluates one variant of a distiller on some images of a dataset, by the metrics of its run.

    Args:
        distiller: A copy: it is left in evaluation mode, predicting as the variant.
        variant: Its name.
        dataset: Gives images as the validation does.
        indices: Which images.
        cfg: Config of the run.
        ann_file: See :func:`mmrkd.engine.samples.restricted_evaluator`.

    Returns:
        The metrics, and whether they know that there were only these images. mmdet's COCO metric gives none at all
        where nothing was detected.
    """
    with tempfile.TemporaryDirectory() as folder:
        metrics, restricted = restricted_evaluator(cfg.val_evaluator, dataset, indices, folder, ann_file)
        evaluator = Evaluator(metrics)
        evaluator.dataset_meta = dataset.metainfo
        distiller.eval()
        distiller.set_variant(variant)
        for batch in small_loader(dataset, indices, cfg.val_dataloader):
            evaluator.process(data_samples=distiller.val_step(batch), data_batch=batch)
        return evaluator.evaluate(len(indices)), restricted
