"""From a distillation to files that plain mmdet and mmpretrain use."""

import os
import os.path as osp
from copy import deepcopy
from typing import Optional

import torch
from mmengine.config import Config, ConfigDict
from torch import Tensor

from mmrkd.checkpoint import METHOD_STATE, load_checkpoint_file
from mmrkd.models import ERA, Distiller, KnowledgeBridge
from mmrkd.models.backbones import Separation, separate
from mmrkd.models.teacher import load_model_config
from mmrkd.registry import MODELS

COPIES = ('bridge', 'peer')  # variants that are a model of the teacher's config with other weights
FORMS = ('student', 'integrated', 'student_alone', *COPIES)
OWN_HOOKS = ('mmrkd.SplitCheckpointHook', 'mmrkd.MergeCheckpointHook', 'mmrkd.ClassCheckHook', 'mmrkd.PhaseHook')

RESUMABLE = {
    'CheckpointHook': 'mmrkd.ResumableCheckpointHook',
    'EpochBasedTrainLoop': 'mmrkd.ResumableEpochLoop',
    'IterBasedTrainLoop': 'mmrkd.ResumableIterLoop',
}


def plain_config(cfg: Config) -> Config:
    """Returns the config of the student alone: the model it was before, no trace of mmrkd.

    Only a student with modules of mmrkd needs it, and gets ``custom_imports``.

    Args:
        cfg: A distillation config. Not changed.
    """
    plain = Config(deepcopy(cfg._cfg_dict))
    plain.model = load_model_config(cfg.model.student)
    plain.custom_hooks = [h for h in plain.get('custom_hooks') or [] if 'mmrkd.' not in str(h.get('type'))]
    for loop, stock in (('val_cfg', 'ValLoop'), ('test_cfg', 'TestLoop')):
        if 'Variant' in str((plain.get(loop) or {}).get('type')):
            plain[loop] = dict(type=stock)
    stock = {own: name for name, own in RESUMABLE.items()}
    for part in (plain.get('train_cfg') or {}, plain.get('default_hooks', {}).get('checkpoint') or {}):
        if part.get('type') in stock:
            part['type'] = stock[part['type']]
            part.pop('on_write_error', None)
    if plain.get('optim_wrapper', {}).get('type') == 'mmrkd.AutocastOptimWrapper':
        plain.optim_wrapper.type = 'OptimWrapper'
    return _importing(plain, "'mmrkd." in str(plain.model))


def _importing(cfg: Config, needed: bool = True) -> Config:
    """Adds mmrkd to the ``custom_imports`` of a config, or takes it out."""
    imports = dict(cfg.get('custom_imports') or {})
    listed = imports.get('imports') or []
    names = [name for name in ([listed] if isinstance(listed, str) else listed) if name != 'mmrkd']
    if needed:
        cfg.custom_imports = {**imports, 'imports': [*names, 'mmrkd'], 'allow_failed_imports': False}
    elif names:
        cfg.custom_imports = {**imports, 'imports': names}
    else:
        cfg._cfg_dict.pop('custom_imports', None)
    return cfg


def separated_config(cfg: Config, assistant_share: float = 0.25, input_size: int = 224) -> tuple[Config, Separation]:
    """Returns a plain config with a student and an assistant in the place of its backbone, and what they cost.

    Args:
        cfg: Config of a detector or classifier. Not changed. Its scope must be the default scope.
        assistant_share: See :func:`mmrkd.models.backbones.separate`.
        input_size: The same.

    Raises:
        ValueError: It has no backbone, or one that cannot be separated.
    """
    paired = Config(deepcopy(cfg._cfg_dict))
    model = paired.model
    if 'backbone' not in model:
        raise ValueError(
            f'expected the config of a detector or classifier, found {model.get("type")!r} without a backbone. '
            'Separate the plain config first, then distil the result.'
        )
    _drop_unread_stages(model)
    separation = separate(model.backbone.to_dict(), assistant_share, input_size)
    model.backbone = separation.backbone
    return _importing(paired), separation


def _drop_unread_stages(model: ConfigDict) -> None:
    """A projection that no neck reads would cost something for nothing, and DDP would wait for its gradient."""
    neck, indices = model.get('neck'), model.backbone.get('out_indices')
    start = neck.get('start_level', 0) if isinstance(neck, dict) else 0
    if start and indices and len(indices) == len(neck.in_channels):
        model.backbone.out_indices = tuple(indices[start:])
        neck.update(in_channels=list(neck.in_channels[start:]), start_level=0)
        if neck.get('end_level', -1) != -1:
            neck.end_level -= start


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
    return _importing(plain)


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


def variant_config(cfg: Config, distiller: Distiller, variant: str) -> Config:
    """Returns an ordinary config of a variant that is one model.

    Args:
        cfg: The distillation config. Not changed.
        distiller: The distiller that was built from it.
        variant: ``integrated``, ``bridge``, ``peer``, or what a method makes of the student (``student_alone``).

    Raises:
        ValueError: The methods have no such form.
    """
    if variant.split('.')[-1] in COPIES:
        return copy_config(cfg)
    derived = _derived(cfg, distiller, variant)
    if derived is None:
        return integrated_config(cfg, distiller)
    plain = plain_config(cfg)
    plain.model = derived
    return plain


def variant_state(cfg: Config, distiller: Distiller, variant: str) -> dict[str, Tensor]:
    """Returns the weights that fit :func:`variant_config`."""
    if variant.split('.')[-1] in COPIES:
        return copy_state(distiller, variant)
    derived = _derived(cfg, distiller, variant)
    if derived is None:
        return integrated_state(distiller)
    trained = distiller.student.state_dict()
    return {name: trained[name] for name in MODELS.build(derived).state_dict()}


def _derived(cfg: Config, distiller: Distiller, variant: str) -> Optional[ConfigDict]:
    if variant not in distiller.variant_owners:
        return None
    method, own_name = distiller.variant_owners[variant]
    derived = method.derive_student(own_name, load_model_config(cfg.model.student))
    return derived and ConfigDict(derived)


def _integrating(distiller: Distiller) -> ERA:
    for method in (method for method in distiller.methods if isinstance(method, ERA)):
        if 'integrated' in method.variants:
            _require_matched_levels(distiller)
            return method
        if 'integrated' in method.refused:
            raise ValueError(f'there is no integrated model. {method.refused["integrated"]}')
    raise ValueError('no method of this distillation has an integrated form; export the student instead')


def _require_matched_levels(distiller: Distiller) -> None:
    """A neck behind the student's own is given all levels, in their order."""
    match = distiller.match
    if [s for s, _ in match.pairs] != list(range(len(match.student_levels))):
        raise ValueError(
            f'the student has {len(match.student_levels)} levels, of which the teacher reads {len(match.pairs)}: there '
            "is no plain config of the integrated form. Evaluate it with the distillation config, or let the student's "
            'neck give the levels of the teacher alone.'
        )


def copy_config(cfg: Config) -> Config:
    """Returns the plain config of a trained copy of the teacher (``bridge``, ``peer``): the teacher's model.

    Data, schedule and hooks are those of the distillation.

    Args:
        cfg: The distillation config. Not changed.
    """
    plain = plain_config(cfg)
    plain.model = load_model_config(cfg.model.teacher.cfg)
    return plain


def copy_state(distiller: Distiller, variant: str) -> dict[str, Tensor]:
    """Returns the weights that fit :func:`copy_config`: what is trained, and of the teacher what lies below it.

    Raises:
        ValueError: No method trains such a copy.
    """
    method, own_name = distiller.variant_owners.get(variant, (None, variant))
    copy = getattr(method, own_name, None)
    if isinstance(copy, KnowledgeBridge):
        return copy.whole_state()
    raise ValueError(f'no method of this distillation trains a {variant}; it can predict as {distiller.variants}')


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
        form: ``'student'``: plain config and weights. ``'integrated'``: student, MBRNet and the teacher's head; of
            ResidualKD student and assistant, which the student is. ``'student_alone'``: without the assistant.
            ``'bridge'``: the teacher's plain config, with the upper part that SemiOnlineKD trained. ``'peer'``: the
            same config, with the weights of the peer of deep mutual learning.
        allow_pickle: Whether the checkpoint may run code of its own.

    Returns:
        The paths of config and checkpoint.

    Raises:
        ValueError: The form does not exist, the checkpoint does not fit, or the config is that of a plain model.
    """
    if 'student' not in cfg.model:
        raise ValueError(
            f'expected a distillation config, found a plain {cfg.model.get("type")}: its checkpoints need no export'
        )
    checkpoint = load_checkpoint_file(ckpt, allow_pickle)
    if form == 'student':
        plain, state = plain_config(cfg), checkpoint['state_dict']
    elif form in COPIES and (size := cfg.model.teacher.get('input_size')):
        raise ValueError(
            f"a {form} runs on images of the teacher's input_size {tuple(size)}, which no plain config of this data "
            "makes out of the student's images. Evaluate it with the distillation config (tools/test.py --variants)."
        )
    elif form in FORMS:
        distiller = load_distiller(cfg, ckpt, allow_pickle)
        plain, state = variant_config(cfg, distiller, form), variant_state(cfg, distiller, form)
    else:
        raise ValueError(f'form must be one of {FORMS}, found {form!r}')
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
    if variant.split('.')[-1] not in FORMS:
        raise ValueError(f'variant {variant!r} is not one model')
    model = MODELS.build(ConfigDict(variant_config(cfg, distiller, variant).model))
    model.load_state_dict(variant_state(cfg, distiller, variant))
    return model.eval()
