"""A few images of a run's data, without touching the run's own dataloaders."""

import json
import os.path as osp
from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from typing import Any, Optional

import numpy as np
from mmengine.dataset import DefaultSampler
from mmengine.registry import FUNCTIONS
from torch.utils.data import DataLoader, Dataset, Subset


def info_of(dataset: Dataset, index: int) -> dict[str, Any]:
    """Returns what a dataset knows of one image before its pipeline runs; nothing for datasets of another kind."""
    return dataset.get_data_info(index) if hasattr(dataset, 'get_data_info') else {}


def spread(length: int, count: int) -> list[int]:
    """Returns up to ``count`` indices, evenly spaced: sets are often sorted by class."""
    return np.linspace(0, length - 1, min(length, count)).round().astype(int).tolist()


def small_loader(dataset: Dataset, indices: Sequence[int], cfg: dict) -> DataLoader:
    """Returns a dataloader of some images, in this process, with the batch size and collation of another's config.

    The dataset is copied as far as its pipeline reaches, since pipelines may keep state (a cache of mosaics).
    """
    collate = dict(cfg.get('collate_fn') or dict(type='pseudo_collate'))
    name = collate.pop('type')
    function = FUNCTIONS.get(name) if isinstance(name, str) else name
    subset = Subset(_copied(dataset), indices)
    sampler = DefaultSampler(subset, shuffle=False, seed=0)
    return DataLoader(subset, cfg.get('batch_size', 1), sampler=sampler, collate_fn=partial(function, **collate))


def _copied(dataset: Dataset) -> Dataset:
    """Copies a dataset, but not its annotations."""
    # Not BaseDataset.get_subset: in mmengine 0.10.7 its copies can be those of an earlier dataset.
    annotations = [getattr(dataset, name, None) for name in ('data_bytes', 'data_address', 'data_list')]
    return deepcopy(dataset, {id(part): part for part in annotations if part is not None})


def restricted_evaluator(
    cfg: Any, dataset: Dataset, indices: Sequence[int], folder: str, ann_file: Optional[str] = None
) -> tuple[list[dict], bool]:
    """Returns metrics that know only some images of their annotation file, and whether they do.

    A metric that reads the whole file would count every object of the other images as missed.

    Args:
        cfg: ``val_evaluator`` of a config.
        dataset: The dataset that the images come from.
        indices: Which images.
        folder: Where to write shortened annotation files of COCO's form, and what the metrics themselves write.
        ann_file: Where the ground truth of the images lies, if not in the file that the metrics name.
    """
    ids = {info_of(dataset, index).get('img_id') for index in indices}
    metrics, restricted = [dict(metric) for metric in as_list(cfg)], True
    for number, metric in enumerate(metrics):
        if metric.get('outfile_prefix'):
            metric['outfile_prefix'] = osp.join(folder, f'results_{number}')  # the user's own file is of all images
        path = metric.get('ann_file') and (ann_file or metric['ann_file'])
        if path:
            content = read_coco(path)
            restricted = restricted and content is not None and None not in ids
            if content is not None:
                content['images'] = [image for image in content['images'] if image['id'] in ids]
                content['annotations'] = [a for a in content.get('annotations', []) if a['image_id'] in ids]
                metric['ann_file'] = osp.join(folder, f'{number}.json')
                with open(metric['ann_file'], 'w') as file:
                    json.dump(content, file)
    return metrics, restricted


def read_coco(path: str) -> Optional[dict]:
    """Returns the content of an annotation file in COCO's form; ``None`` for any other, or one that is broken."""
    if not path.endswith('.json') or not osp.isfile(path):
        return None
    try:
        with open(path) as file:
            content = json.load(file)
    except ValueError:  # cut short, or not JSON: the dataset cannot be built, which is said there
        return None
    return content if isinstance(content, dict) and 'images' in content else None


def as_list(cfg: Any) -> list:
    """Returns the metrics in a ``val_evaluator``, which may be one, several or none."""
    return [] if not cfg else list(cfg) if isinstance(cfg, (list, tuple)) else [cfg]
