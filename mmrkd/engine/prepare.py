"""From the few lines that a user writes to a config that a runner can run."""

import os.path as osp
from collections.abc import Iterator, Sequence
from typing import Any, Union

import torch
from mmengine.config import Config, ConfigDict
from torch import nn

from mmrkd.models import Distiller
from mmrkd.plain_config import DIAGNOSIS_HOOK, OWN_HOOKS, RESUMABLE
from mmrkd.registry import type_name, type_names

DOWNLOADED = ('CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST')  # mmpretrain fetches what is not there
TRAINING, TESTING = ('train_dataloader', 'val_dataloader'), ('test_dataloader',)


def is_distillation(cfg: Union[Config, ConfigDict]) -> bool:
    """Whether the model of a config is a :class:`mmrkd.models.Distiller`, or derived from it, built or not."""
    model = cfg.get('model')
    if isinstance(model, nn.Module):
        return isinstance(model, Distiller)
    return model is not None and not {'mmrkd.Distiller', 'Distiller'}.isdisjoint(type_names(model))


def prepare_config(cfg: Config) -> Config:
    """Adds what a distillation run needs and checks that its data is there. Plain configs pass through.

    Args:
        cfg: Config of a run; changed in place. One that is prepared already stays as it is.

    Returns:
        The same config.

    Raises:
        FileNotFoundError: An annotation file or data folder is not there; all of them are listed.
    """
    check_data(cfg)
    complete_config(cfg)
    return cfg


def complete_config(cfg: Union[Config, ConfigDict]) -> None:
    """Adds hooks and exact loops to the config of a distillation, in place, whatever of it is not there yet.

    Args:
        cfg: Config of a run, or the arguments of a runner.
    """
    if not is_distillation(cfg):
        return
    if isinstance(cfg['model'], dict):  # functions of the libraries look for it
        cfg['model'].setdefault('backbone', {})
    hooks = list(cfg.get('custom_hooks') or [])
    present = {name for hook in hooks for name in type_names(hook)}
    cfg['custom_hooks'] = [*hooks, *(dict(type=name) for name in OWN_HOOKS if name not in present)]
    _settle_diagnosis(cfg)
    make_resumable(cfg)


def _settle_diagnosis(cfg: Union[Config, ConfigDict]) -> None:
    """Adds or removes the hook of the diagnosis, as ``diagnosis`` in the config says.

    Raises:
        ValueError: It says something else than True (or nothing), False, or arguments of the hook.
    """
    wanted = cfg.get('diagnosis', True)
    wanted = True if wanted is None else wanted
    if not isinstance(wanted, bool) and not (isinstance(wanted, dict) and set(wanted) <= {'samples', 'images'}):
        raise ValueError(f'diagnosis: expected dict(samples=8, images=64), True or False, found {wanted!r}')
    others = [hook for hook in cfg['custom_hooks'] if DIAGNOSIS_HOOK not in type_names(hook)]
    if wanted is False:
        cfg['custom_hooks'] = others
    elif len(others) == len(cfg['custom_hooks']):
        options = wanted if isinstance(wanted, dict) else {}
        cfg['custom_hooks'] = [*others, dict(options, type=DIAGNOSIS_HOOK)]


def make_resumable(cfg: Union[Config, ConfigDict]) -> None:
    """Puts the exact versions in the place of mmengine's checkpoint hook and training loop, and of nothing else.

    Whoever wrote a hook or a loop of their own keeps it.
    """
    hooks = {'checkpoint': ConfigDict(type='CheckpointHook', interval=1), **(cfg.get('default_hooks') or {})}
    cfg['default_hooks'] = {**hooks, 'checkpoint': _resumable(hooks['checkpoint'])}  # None switches the hook off
    if cfg.get('train_cfg') is not None:
        cfg['train_cfg'] = _resumable(cfg['train_cfg'])


def _resumable(part: Any) -> Any:
    """Returns the exact version of a hook or loop of mmengine's, and anything else as it is."""
    if not isinstance(part, dict):
        return part  # it is built already
    part = ConfigDict(part)
    if 'by_epoch' in part and 'type' not in part:
        part['type'] = 'EpochBasedTrainLoop' if part.pop('by_epoch') else 'IterBasedTrainLoop'
    if type_name(part) in RESUMABLE:
        part['type'] = RESUMABLE[type_name(part)]
    return part


def use_gloo(cfg: Config) -> None:
    """Lets the processes of a run without a GPU talk through gloo: mmengine would give each of them a GPU.

    Args:
        cfg: Config of a run; changed in place.
    """
    if cfg.get('launcher', 'none') == 'none' or torch.cuda.is_available():
        return
    cfg['env_cfg'] = {**(cfg.get('env_cfg') or {}), 'dist_cfg': dict(backend='gloo')}
    # mmengine's default wrapper, which would name a GPU for each process.
    unused = cfg.get('find_unused_parameters', False)
    wrapper = dict(type='MMDistributedDataParallel', broadcast_buffers=False, find_unused_parameters=unused)
    cfg['model_wrapper_cfg'] = {'device_ids': None, **(cfg.get('model_wrapper_cfg') or wrapper)}


def check_data(cfg: Config, loaders: Sequence[str] = TRAINING + TESTING) -> None:
    """Checks that the files which the dataloaders of a config name are there.

    Args:
        cfg: Config of a run.
        loaders: Names of the dataloaders that it needs.

    Raises:
        FileNotFoundError: Something is missing.
    """
    missing = [f'{where}: {path}' for where, path, _ in missing_data(cfg) if where in loaders]
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
    for name in TRAINING + TESTING:
        for dataset in _datasets(_dataset_of(cfg.get(name))):
            if type_name(dataset).split('.')[-1] in DOWNLOADED and dataset.get('download', True):
                continue
            root = dataset.get('data_root') or ''
            if dataset.get('ann_file'):
                yield name, osp.join(root, dataset['ann_file']), 'annotations'
            prefix = dataset.get('data_prefix') or ''
            for folder in prefix.values() if isinstance(prefix, dict) else [prefix]:
                if isinstance(folder, str) and (root or folder):
                    yield name, osp.join(root, folder), 'images'


def _dataset_of(loader: Any) -> dict:
    """The dataset of a dataloader; none where either is built already."""
    dataset = loader.get('dataset') if isinstance(loader, dict) else None
    return dataset if isinstance(dataset, dict) else {}


def _datasets(dataset: dict) -> list[dict]:
    """Looks through wrappers such as RepeatDataset and ConcatDataset."""
    inner = dataset.get('dataset') or dataset.get('datasets')
    if inner is None:
        return [dataset]
    return [leaf for d in (inner if isinstance(inner, (list, tuple)) else [inner]) for leaf in _datasets(d)]
