"""The datasets of a run, as far as they can be built."""

import os.path as osp

from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmrkd.doctor.report import Report
from mmrkd.engine.prepare import missing_data
from mmrkd.engine.samples import as_list, info_of, spread

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
