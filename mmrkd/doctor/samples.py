"""A few images of a run's data, without touching the run's own dataloaders."""

import json
import os.path as osp
from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from typing import Any, Optional

import numpy as np
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.registry import DATASETS, FUNCTIONS
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset, Subset

from mmrkd.doctor.report import Report
from mmrkd.engine.prepare import missing_data

LOOKED_AT = 64


def build_datasets(cfg: Config, report: Report) -> dict[str, Dataset]:
    """Builds the datasets of training and validation, and reports what is missing or cannot be read."""
    missing: list[tuple[str, str, str]] = []
    with report.expecting('data-unreadable'):
        if not cfg.get('train_dataloader'):
            raise ValueError('the config has no train_dataloader')
        missing = missing_data(cfg)
    for where, path, kind in missing:
        report.fault(f'missing-{kind}', f'{where}: {path} is not there')
    for metric in as_list(cfg.get('val_evaluator')):
        path = metric.get('ann_file')
        if path and '://' not in path and not osp.isfile(path):
            report.fault('missing-annotations', f'val_evaluator: {path} is not there')
    absent, datasets = {where for where, _, _ in missing}, {}
    for name in ('train_dataloader', 'val_dataloader'):
        if cfg.get(name) and name not in absent:
            with report.expecting('data-unreadable', FileNotFoundError='missing-annotations'):
                try:
                    dataset = _build(cfg[name].dataset)
                    datasets[name] = dataset
                    if not any(fault.name == 'batch-size' for fault in report.faults):
                        Runner.build_dataloader({**cfg[name], 'dataset': dataset})  # starts no worker
                except ValueError as error:
                    if 'need at least one array' not in str(error):  # what numpy says when mmengine packs no image
                        raise
                    report.fault('empty-data', f'{name}: the dataset is empty')
    return datasets


def _build(cfg: dict) -> Dataset:
    dataset = DATASETS.build(cfg)
    if hasattr(dataset, 'full_init'):
        dataset.full_init()
    return dataset


def has_content(name: str, dataset: Dataset, report: Report) -> bool:
    """Whether a dataset has images and, as far as it says so, objects; reports it if not."""
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    hint = f'; its classes are {tuple(classes)[:10]}' if classes else ''
    if len(dataset) == 0:
        report.fault('empty-data', f'{name}: the dataset is empty{hint}')
        return False
    infos = [info_of(dataset, index) for index in spread(len(dataset), LOOKED_AT)]
    if all('instances' in info and not info['instances'] for info in infos):
        report.fault('empty-data', f'{name}: {len(infos)} images, and none of them has an object{hint}')
        return False
    return True


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


def restricted_evaluator(cfg: Any, dataset: Dataset, indices: Sequence[int], folder: str) -> tuple[list[dict], bool]:
    """Returns metrics that know only some images of their annotation file, and whether they do.

    A metric that reads the whole file would count every object of the other images as missed.

    Args:
        cfg: ``val_evaluator`` of a config.
        dataset: The dataset that the images come from.
        indices: Which images.
        folder: Where to write shortened annotation files of COCO's form.
    """
    ids = {info_of(dataset, index).get('img_id') for index in indices}
    metrics, restricted = [dict(metric) for metric in as_list(cfg)], True
    for number, metric in enumerate(metrics):
        path = metric.get('ann_file')
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
