"""Looks at annotations before anything is trained on them: what a dataset drops, it drops without a word."""

import os.path as osp
from collections import Counter
from collections.abc import Iterator
from typing import Any, Optional

import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS
from torch.utils.data import Dataset

from mmrkd.doctor.boxes import Boxes, examine_boxes
from mmrkd.doctor.report import Report
from mmrkd.engine.samples import info_of, read_coco, spread

MOST_IMAGES, MOST_IMAGES_OPENED = 1000, 16


def examine_annotations(cfg: Config, datasets: dict[str, Dataset], report: Report) -> dict[str, list[Boxes]]:
    """Looks at the boxes and categories of the training and validation data.

    Annotation files in COCO's form are read as they are. Of others, the objects that the dataset has kept are looked
    at, of up to ``MOST_IMAGES`` images.

    Args:
        cfg: Config of the run.
        datasets: The datasets that could be built.
        report: Receives faults, and warnings where a share is small.

    Returns:
        The boxes of each dataloader, without crowds and without those that are not finite.
    """
    found = {}
    for name in ('train_dataloader', 'val_dataloader'):
        leaves = list(_leaves((cfg.get(name) or {}).get('dataset') or {}))
        contents = [(leaf, read_coco(osp.join(leaf.get('data_root') or '', leaf['ann_file']))) for leaf in leaves]
        boxes = [_coco_boxes(name, content, report) for _, content in contents if content is not None]
        for leaf, content in contents:
            if content is not None:
                _examine_categories(name, leaf, content, report)
        if not boxes and name in datasets:
            boxes = [_dataset_boxes(name, datasets[name])]
        found[name] = [examine_boxes(part, report) for part in boxes if len(part.xywh)]
        if name in datasets:
            _examine_image_sizes(name, datasets[name], report)
    return found


def _coco_boxes(where: str, content: dict, report: Report) -> Boxes:
    images = {image['id']: image for image in content['images']}
    objects = [a for a in content.get('annotations', ()) if 'bbox' in a and a.get('image_id') in images]
    if len(objects) < len(content.get('annotations', ())) and objects:
        lost = [a for a in content['annotations'] if a.get('image_id') not in images]
        if lost:
            report.warn('annotations-lost', f'{where}: {len(lost)} annotations belong to no image of the file')
    broken = [a for a in objects if not _is_box(a['bbox'])]
    if broken:
        text = f'{len(broken)} of {len(objects)} boxes are not four numbers, the first is {broken[0]["bbox"]!r}'
        report.fault('boxes-format', f'{where}: {text}')
        objects = [a for a in objects if _is_box(a['bbox'])]
    if any('area' not in a for a in objects):
        text = f'{sum("area" not in a for a in objects)} of {len(objects)} annotations have no `area`'
        report.fault('boxes-without-area', f'{where}: {text}')
    objects = [a for a in objects if not a.get('iscrowd') and not a.get('ignore')]
    own = [images[a['image_id']] for a in objects]
    return Boxes(
        where,
        np.array([a['bbox'] for a in objects], dtype=float).reshape(-1, 4),
        np.array([(i.get('width', np.nan), i.get('height', np.nan)) for i in own], dtype=float).reshape(-1, 2),
        [image.get('file_name', image['id']) for image in own],
        np.array([a.get('area', np.nan) for a in objects], dtype=float),
    )


def _dataset_boxes(where: str, dataset: Dataset) -> Boxes:
    rows, sizes, images = [], [], []
    for info in (info_of(dataset, index) for index in spread(len(dataset), MOST_IMAGES)):
        for instance in info.get('instances') or ():
            if _is_box(instance.get('bbox')) and not instance.get('ignore_flag'):
                left, top, right, bottom = instance['bbox']
                rows.append((left, top, right - left, bottom - top))
                sizes.append((info.get('width', np.nan), info.get('height', np.nan)))
                images.append(info.get('img_path', info.get('img_id')))
    numbers = np.array(rows, dtype=float).reshape(-1, 4), np.array(sizes, dtype=float).reshape(-1, 2)
    return Boxes(where, *numbers, images, np.full(len(rows), np.nan))


def _examine_categories(where: str, cfg: dict, content: dict, report: Report) -> None:
    """Compares the categories that a file defines with those of its boxes and with the classes of the dataset."""
    names = {category['id']: category.get('name') for category in content.get('categories', ())}
    counts = Counter(a.get('category_id') for a in content.get('annotations', ()) if 'bbox' in a)
    total = sum(counts.values())
    unknown = [key for key in counts if key not in names]
    if unknown:
        lost = sum(counts[key] for key in unknown)
        text = f'{lost} of {total} boxes ({lost / total:.1%}) have a category_id that the file does not define'
        report.fault('category-unknown', f'{where}: {text}: {_listed(unknown)}; it defines {_listed(names)}')
    classes = _classes(cfg)
    present = [name for name in names.values() if name in (classes or ())]
    if not present:
        return  # the dataset is empty, or not one of classes
    missing = [name for name in classes if name not in present]
    if missing and present != list(classes[: len(present)]):
        text = f'the classes {_listed(missing)} are no categories of the file, so that the labels of others shift'
        report.fault('category-unknown', f'{where}: {text}; it has {_listed(names.values())}')
    elif missing:
        report.warn('category-unused', f'{where}: the classes {_listed(missing)} are no categories of the file')
    unused = [name for key, name in names.items() if name in present and not counts[key]]
    if unused and total:
        report.warn('category-unused', f'{where}: the classes {_listed(unused)} have no box')
    others = {name: counts[key] for key, name in names.items() if name not in present and counts[key]}
    if others:
        share = sum(others.values()) / total
        text = f'{share:.1%} of the boxes are of categories that are not among the classes: {_listed(others)}'
        report.warn('category-unused', f'{where}: {text}')


def _examine_image_sizes(where: str, dataset: Dataset, report: Report) -> None:
    """Compares the sizes in the annotations with those of a few images."""
    wrong, looked_at = [], 0
    for info in (info_of(dataset, index) for index in spread(len(dataset), MOST_IMAGES_OPENED)):
        path, declared = info.get('img_path'), (info.get('width'), info.get('height'))
        image = mmcv.imread(path) if isinstance(path, str) and osp.isfile(path) and all(declared) else None
        if image is None:
            continue
        looked_at += 1
        size = image.shape[1], image.shape[0]
        if size != declared:
            exchanged = ': width and height are exchanged' if size == declared[::-1] else ''
            wrong.append(f'{osp.basename(path)} is {size[0]} x {size[1]}, the annotations say {declared}{exchanged}')
    if wrong:
        text = f'{where}: {len(wrong)} of {looked_at} images have another size than the annotations say: {wrong[0]}'
        report.judge('image-size', text, fault=2 * len(wrong) >= looked_at)


def _classes(cfg: dict) -> Optional[tuple[str, ...]]:
    """Returns the classes that a config gives to a dataset of COCO's kind, or that its class has."""
    kind = cfg.get('type')
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(cfg.get('_scope_')) as registry:
            kind = registry.get(kind)
    if not isinstance(kind, type) or 'CocoDataset' not in [base.__name__ for base in kind.__mro__]:
        return None
    classes = (cfg.get('metainfo') or {}).get('classes', getattr(kind, 'METAINFO', {}).get('classes'))
    return tuple(classes) if isinstance(classes, (list, tuple)) else None


def _leaves(dataset: dict) -> Iterator[dict]:
    """Looks through wrappers such as RepeatDataset; yields what names an annotation file."""
    inner = dataset.get('dataset') or dataset.get('datasets')
    for part in inner if isinstance(inner, (list, tuple)) else [inner] if inner else ():
        yield from _leaves(part)
    if not inner and isinstance(dataset.get('ann_file'), str):
        yield dataset


def _is_box(box: Any) -> bool:
    return isinstance(box, (list, tuple, np.ndarray)) and len(box) == 4 and all(_is_number(v) for v in box)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _listed(names: Any, most: int = 6) -> str:
    names = list(map(str, names))
    return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')
