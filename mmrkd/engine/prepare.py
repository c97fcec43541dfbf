"""From the few lines that a user writes to a config that a runner can run."""

import os.path as osp
from collections.abc import Iterator

from mmengine.config import Config, ConfigDict

from mmrkd.export import OWN_HOOKS, RESUMABLE

DOWNLOADED = ('CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST')  # mmpretrain fetches what is not there


def is_distillation(cfg: Config) -> bool:
    """Whether the model of a config is a :class:`mmrkd.models.Distiller`."""
    kind = cfg.model.get('type')  # pure-python configs name the class itself
    return getattr(kind, '__name__', kind) in ('mmrkd.Distiller', 'Distiller')


def prepare_config(cfg: Config) -> Config:
    """Adds the hooks that a distillation needs and checks that its data is there. Plain configs pass through.

    Args:
        cfg: Config of a run; changed in place.

    Returns:
        The same config.

    Raises:
        FileNotFoundError: An annotation file or data folder is not there; all of them are listed.
    """
    check_data(cfg)
    if is_distillation(cfg):
        present = {hook.get('type') for hook in cfg.get('custom_hooks') or []}
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), *(dict(type=h) for h in OWN_HOOKS if h not in present)]
        make_resumable(cfg)
    return cfg


def make_resumable(cfg: Config) -> None:
    """Puts the exact versions in the place of mmengine's checkpoint hook and training loop, and of nothing else.

    Whoever wrote a hook or a loop of their own keeps it.
    """
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    checkpoint = hooks.setdefault('checkpoint', ConfigDict(type='CheckpointHook', interval=1))  # as mmengine does
    loop = cfg.get('train_cfg') or {}
    if 'by_epoch' in loop and 'type' not in loop:
        loop['type'] = 'EpochBasedTrainLoop' if loop.pop('by_epoch') else 'IterBasedTrainLoop'
    for part in (checkpoint or {}, loop):  # None switches the hook off
        part_type = part.get('type')
        if isinstance(part_type, type):  # pure-python configs name the class itself
            part_type = f'{part_type.__module__}.{part_type.__name__}'
        *scope, name = str(part_type).split('.')
        if name in RESUMABLE and scope[:1] in ([], ['mmengine']):
            part['type'] = RESUMABLE[name]


def check_data(cfg: Config) -> None:
    """Checks that the files which the dataloaders of a config name are there.

    Raises:
        FileNotFoundError: Something is missing.
    """
    missing = [f'{where}: {path}' for where, path, _ in missing_data(cfg)]
    if missing:
        raise FileNotFoundError(
            'the data of this config is not there:\n  '
            + '\n  '.join(missing)
            + '\nChange data_root in the config (or --cfg-options), set MMRKD_DATA to the folder that holds the '
            'datasets, or link it to ./data.'
        )


def missing_data(cfg: Config) -> list[tuple[str, str, str]]:
    """Returns ``(dataloader, path, 'annotations' or 'images')`` for each local file or folder that is not there."""
    return [found for found in _data_paths(cfg) if '://' not in found[1] and not osp.exists(found[1])]


def _data_paths(cfg: Config) -> Iterator[tuple[str, str, str]]:
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for dataset in _datasets((cfg.get(name) or {}).get('dataset') or {}):
            if str(dataset.get('type')).split('.')[-1] in DOWNLOADED and dataset.get('download', True):
                continue
            root = dataset.get('data_root') or ''
            if dataset.get('ann_file'):
                yield name, osp.join(root, dataset['ann_file']), 'annotations'
            prefix = dataset.get('data_prefix') or ''
            for folder in prefix.values() if isinstance(prefix, dict) else [prefix]:
                if isinstance(folder, str) and (root or folder):
                    yield name, osp.join(root, folder), 'images'


def _datasets(dataset: dict) -> list[dict]:
    """Looks through wrappers such as RepeatDataset and ConcatDataset."""
    inner = dataset.get('dataset') or dataset.get('datasets')
    if inner is None:
        return [dataset]
    return [leaf for d in (inner if isinstance(inner, (list, tuple)) else [inner]) for leaf in _datasets(d)]
