"""From a distillation to files that plain mmdet and mmpretrain use."""

import os
import os.path as osp
from copy import deepcopy

import torch
from mmengine.config import Config, ConfigDict
from torch import Tensor

from mmrkd.checkpoint import METHOD_STATE, load_checkpoint_file
from mmrkd.models import Distiller, DistillMethod
from mmrkd.models.teacher import load_model_config
from mmrkd.registry import MODELS

OWN_HOOKS = ('mmrkd.SplitCheckpointHook', 'mmrkd.MergeCheckpointHook', 'mmrkd.ClassCheckHook')


def plain_config(cfg: Config) -> Config:
    """Returns the config of the student alone: the model it was before, no trace of mmrkd.

    Args:
        cfg: A distillation config. Not changed.
    """
    plain = Config(deepcopy(cfg._cfg_dict))
    plain.model = load_model_config(cfg.model.student)
    plain.custom_hooks = [h for h in plain.get('custom_hooks') or [] if h.get('type') not in OWN_HOOKS]
    for loop, stock in (('val_cfg', 'ValLoop'), ('test_cfg', 'TestLoop')):
        if 'Variant' in str((plain.get(loop) or {}).get('type')):
            plain[loop] = dict(type=stock)
    if plain.get('optim_wrapper', {}).get('type') == 'mmrkd.AutocastOptimWrapper':
        plain.optim_wrapper.type = 'OptimWrapper'
    return plain


def integrated_config(cfg: Config, distiller: Distiller) -> Config:
    """Returns an ordinary config of the integrated model: student, P and MBRNet as a neck, the teacher's head.

    It needs mmrkd for the neck, which ``custom_imports`` brings in.

    Args:
        cfg: The distillation config. Not changed.
        distiller: The distiller that was built from it.

    Raises:
        ValueError: The methods have no integrated form, or the student lacks levels that the teacher's head reads.
    """
    method = _integrating(distiller)
    student, teacher = load_model_config(cfg.model.student), load_model_config(cfg.model.teacher.cfg)
    model = deepcopy(teacher)
    model.pop('init_cfg', None)
    model['backbone'] = deepcopy(student['backbone'])
    model['data_preprocessor'] = deepcopy(student.get('data_preprocessor') or cfg.get('data_preprocessor'))
    necks = student.get('neck') or []
    neck = dict(type=f'mmrkd.{type(method.neck).__name__}', **method.neck_cfg)
    model['neck'] = [*deepcopy(necks if isinstance(necks, list) else [necks]), neck]
    plain = plain_config(cfg)
    plain.model = model
    plain.custom_imports = dict(imports=['mmrkd'], allow_failed_imports=False)
    return plain


def integrated_state(distiller: Distiller) -> dict[str, Tensor]:
    """Returns the weights that fit :func:`integrated_config`."""
    method = _integrating(distiller)
    student, teacher = distiller.student.state_dict(), distiller.teacher.model.state_dict()
    neck = getattr(distiller.student, 'neck', None)
    count = 0 if neck is None else len(neck) if isinstance(neck, torch.nn.Sequential) else 1
    inner = 'neck.' if isinstance(neck, torch.nn.Sequential) else 'neck.0.'
    state = {k: v for k, v in student.items() if k.startswith('backbone.')}
    state.update({inner + k[len('neck.') :]: v for k, v in student.items() if k.startswith('neck.')})
    state.update({f'neck.{count}.{k}': v for k, v in method.neck.state_dict().items()})
    state.update({k: v for k, v in teacher.items() if not k.startswith(('backbone.', 'neck.'))})
    return state


def _integrating(distiller: Distiller) -> DistillMethod:
    for method in distiller.methods:
        if 'integrated' in method.variants:
            return method
        if 'integrated' in method.refused:
            raise ValueError(f'there is no integrated model. {method.refused["integrated"]}')
    raise ValueError('no method of this distillation has an integrated form; export the student instead')


def load_distiller(cfg: Config, ckpt: str, allow_pickle: bool = False) -> Distiller:
    """Builds a distiller and loads a checkpoint of its training, methods included.

    Raises:
        ValueError: The checkpoint does not fit, or holds no state of the methods.
    """
    checkpoint = load_checkpoint_file(ckpt, allow_pickle)
    if METHOD_STATE not in checkpoint:
        raise ValueError(f'{ckpt!r} is a plain checkpoint: it has no state of the distillation ({METHOD_STATE!r})')
    distiller = MODELS.build(cfg.model)
    distiller.load_state_dict({**checkpoint['state_dict'], **checkpoint[METHOD_STATE]['state_dict']})
    return distiller.eval()


def export(cfg: Config, ckpt: str, out: str, form: str = 'student', allow_pickle: bool = False) -> tuple[str, str]:
    """Writes ``<form>.py`` and ``<form>.pth`` into a folder.

    Args:
        cfg: The distillation config.
        ckpt: A checkpoint of its training.
        out: Folder, created if needed.
        form: ``'student'``: plain config and weights. ``'integrated'``: student, MBRNet and the teacher's head.
        allow_pickle: Whether the checkpoint may run code of its own.

    Returns:
        The paths of config and checkpoint.

    Raises:
        ValueError: The form does not exist, or the checkpoint does not fit.
    """
    checkpoint = load_checkpoint_file(ckpt, allow_pickle)
    if form == 'student':
        plain, state = plain_config(cfg), checkpoint['state_dict']
    elif form == 'integrated':
        distiller = load_distiller(cfg, ckpt, allow_pickle)
        plain, state = integrated_config(cfg, distiller), integrated_state(distiller)
    else:
        raise ValueError(f"form must be 'student' or 'integrated', found {form!r}")
    os.makedirs(out, exist_ok=True)
    paths = osp.join(out, f'{form}.py'), osp.join(out, f'{form}.pth')
    plain.dump(paths[0])
    meta = {k: v for k, v in (checkpoint.get('meta') or {}).items() if k in ('dataset_meta', 'epoch', 'iter')}
    torch.save(dict(state_dict=state, meta=meta), paths[1])
    return paths


def build_variant(cfg: Config, distiller: Distiller, variant: str) -> torch.nn.Module:
    """Returns a variant as a model of its own, to count its parameters and operations and to time it."""
    if variant == 'student':
        return distiller.student
    if variant == 'teacher':
        return distiller.teacher.model
    if variant != 'integrated':
        raise ValueError(f'variant {variant!r} is not one model')
    model = MODELS.build(ConfigDict(integrated_config(cfg, distiller).model))
    model.load_state_dict(integrated_state(distiller))
    return model.eval()
