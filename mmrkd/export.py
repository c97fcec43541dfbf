"""From a distillation to files that plain mmdet and mmpretrain use."""

import os
import os.path as osp
from copy import deepcopy

import torch
from mmengine.config import Config, ConfigDict

from mmrkd.checkpoint import METHOD_STATE, load_checkpoint_file
from mmrkd.models import Distiller, Variant
from mmrkd.models.backbones import Separation, separate
from mmrkd.models.method_state import restored_state
from mmrkd.plain_config import importing_mmrkd, plain_config
from mmrkd.registry import MODELS


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
    return importing_mmrkd(paired), separation


def _drop_unread_stages(model: ConfigDict) -> None:
    """A projection that no neck reads would cost something for nothing, and DDP would wait for its gradient."""
    neck, indices = model.get('neck'), model.backbone.get('out_indices')
    start = neck.get('start_level', 0) if isinstance(neck, dict) else 0
    if start and indices and len(indices) == len(neck.in_channels):
        model.backbone.out_indices = tuple(indices[start:])
        neck.update(in_channels=list(neck.in_channels[start:]), start_level=0)
        if neck.get('end_level', -1) != -1:
            neck.end_level -= start


def variant_config(cfg: Config, variant: Variant) -> Config:
    """Returns an ordinary config of a variant that is one model: data, schedule and hooks are the distillation's.

    Args:
        cfg: The distillation config. Not changed.
        variant: One of :attr:`mmrkd.models.Distiller.variants`.

    Raises:
        ValueError: It is not one model.
    """
    plain = plain_config(cfg)
    plain.model = ConfigDict(deepcopy(variant.model_config()))
    return importing_mmrkd(plain, "'mmrkd." in str(plain.model))


def load_distiller(cfg: Config, ckpt: str, allow_pickle: bool = False) -> Distiller:
    """Builds a distiller and loads a checkpoint of its training, methods included.

    Raises:
        ValueError: The checkpoint does not fit, or holds no state of the methods.
    """
    checkpoint = load_checkpoint_file(ckpt, allow_pickle)
    if METHOD_STATE not in checkpoint:
        raise ValueError(f'{ckpt!r} is a plain checkpoint: it has no state of the distillation ({METHOD_STATE!r})')
    model = ConfigDict(deepcopy(cfg.model))
    if cfg.get('data_preprocessor') is not None:  # mmpretrain keeps it beside the model
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    distiller = MODELS.build(model)
    saved = checkpoint[METHOD_STATE]
    own = restored_state(saved['state_dict'], distiller.methods, saved.get('methods', {}))
    distiller.load_state_dict({**checkpoint['state_dict'], **own})
    return distiller.eval()


def export(
    cfg: Config, ckpt: str, out: str, form: str = 'student', allow_pickle: bool = False, plain_too: bool = False
) -> tuple[str, str]:
    """Writes ``<form>.py`` and ``<form>.pth`` into a folder.

    Args:
        cfg: The distillation config.
        ckpt: A checkpoint of its training.
        out: Folder, created if needed.
        form: ``'student'``: plain config and weights. Else a variant of the distillation: ``'integrated'`` (ERA:
            student, MBRNet and the teacher's head; ResidualKD: student and assistant), ``'student_alone'`` (without the
            assistant), ``'bridge'`` (the teacher's plain config, with the upper part that SemiOnlineKD trained),
            ``'peer'`` (of deep mutual learning). Of two methods with one variant, ``'era.integrated'``.
        allow_pickle: Whether the checkpoint may run code of its own.
        plain_too: Whether the config may be that of a plain model, which is written as it is. Defaults to False.

    Returns:
        The paths of config and checkpoint.

    Raises:
        ValueError: The form does not exist, the checkpoint does not fit, or the config is that of a plain model.
    """
    distilled = 'student' in cfg.model
    if not distilled and not (plain_too and form == 'student'):
        raise ValueError(
            f'expected a distillation config, found a plain {cfg.model.get("type")}: its checkpoints need no export'
        )
    checkpoint = load_checkpoint_file(ckpt, allow_pickle)
    if form == 'student':
        plain, state = plain_config(cfg) if distilled else cfg, checkpoint['state_dict']
    else:
        distiller = load_distiller(cfg, ckpt, allow_pickle)
        distiller.set_variant(form)  # refuses one that is not there
        variant = distiller.variants[form]
        plain, state = variant_config(cfg, variant), variant.weights()
    os.makedirs(out, exist_ok=True)
    paths = osp.join(out, f'{form}.py'), osp.join(out, f'{form}.pth')
    plain.dump(paths[0])
    meta = {k: v for k, v in (checkpoint.get('meta') or {}).items() if k in ('dataset_meta', 'epoch', 'iter')}
    torch.save(dict(state_dict=state, meta=meta), paths[1])
    return paths
