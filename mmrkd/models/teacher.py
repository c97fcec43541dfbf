"""The teacher: loaded strictly, frozen for good, and nobody's submodule."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from typing import Any, Optional, Union

import torch
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from torch import Tensor, nn

from mmrkd.adapters import build_adapter
from mmrkd.adapters.names import names_in
from mmrkd.adapters.state import numbers_in
from mmrkd.checkpoint import load_checkpoint_file, load_strictly
from mmrkd.models.class_map import ClassMap
from mmrkd.registry import MODELS
from mmrkd.stack import EXTRAS, require_extra


def read_config_file(path: str) -> Config:
    """Reads a config file, or one that a library ships (``'mmdet::...'``, ``'mmpretrain::...'``).

    Raises:
        FileNotFoundError: It, or a config that it inherits from, is not there.
        ImportError: It is for a library of an extra that is not installed.
        ValueError: It is no valid config.
    """
    if '::' in path:
        require_extra(path.partition('::')[0])  # mmengine would install the library with whatever pip it finds
    try:
        return get_config(path) if '::' in path else Config.fromfile(path)
    except FileNotFoundError:
        raise
    except Exception as error:  # a config is a program: it can fail in any way
        for library in EXTRAS:
            if library in f'{path} {error}':
                require_extra(library)
        raise ValueError(f'the config {path!r} cannot be read. {type(error).__name__}: {error}') from error


def load_model_config(cfg: Union[str, dict]) -> ConfigDict:
    """Returns the model part of a config, with the registry scope that its types belong to.

    Args:
        cfg: ``'mmdet::...'`` or ``'mmpretrain::...'``, the path of a config file, a whole config, or its model part.

    Raises:
        ImportError: It is for a library of an extra that is not installed.
        ValueError: There is no model in it.
    """
    if isinstance(cfg, str):
        cfg = read_config_file(cfg)
    scope = cfg.get('default_scope')
    for name in (scope, cfg.get('_scope_'), (cfg.get('model') or {}).get('_scope_')):
        require_extra(name)
    model = cfg.get('model', cfg)
    if 'type' not in model:
        raise ValueError(f'the config of a model needs a `type`, or a `model` that has one, but has only {list(cfg)}')
    model = deepcopy(ConfigDict(model))  # some models write into their config while they are built
    if cfg.get('data_preprocessor') is not None:  # mmpretrain keeps it beside the model
        model.setdefault('data_preprocessor', cfg['data_preprocessor'])
    if scope is not None:
        model.setdefault('_scope_', scope)
    return model


class FrozenTeacher:
    """A trained model that is asked for features, outputs and losses and never changes.

    It is a plain object and not an ``nn.Module``, so that a distiller can hold it without owning it: no key in the
    distiller's ``state_dict``, no parameter for an optimiser, EMA or DDP to see, and ``distiller.train()`` cannot
    switch it out of evaluation mode (BatchNorm, dropout and DropPath alike).

    Gradient contract: no parameter requires a gradient. Gradients do flow *through* its head into features that are
    given to :class:`mmrkd.models.heads.TeacherHead`.

    Args:
        cfg: Config of the teacher, see :func:`load_model_config`.
        ckpt: Checkpoint file or address. Loaded strictly.
        allow_pickle: Whether the checkpoint may run code of its own. Defaults to False.
        at: Where its features lie, see :meth:`mmrkd.adapters.ModelAdapter.placed_at`. The distiller gives it.
        input_size: ``(height, width)`` of the images that it runs on, where the student's have another size (a
            transformer for 224 pixels, a student for 32). Of maps only features can be compared then, and only if the
            distiller may interpolate them (``resize``). Defaults to None: the student's size.
        class_map: The student's classes in their order, where the teacher knows more of them or others before them: a
            list of names that it has, too, or student's name -> teacher's name (or place). Methods see its
            :attr:`outputs` for these classes alone, so that logits and boxes can be compared. Methods that run its head
            themselves refuse such a teacher. Defaults to None: the classes are the same, or do not matter.

    Attributes:
        classes: Names of its classes (of its keypoints), as its checkpoint has them, or as ``class_map`` calls those
            that the student knows; ``None`` without.
        dataset_meta: What its checkpoint says of the data that it was trained on.
        class_map: What of its classes the student knows; ``None``: all.

    Raises:
        ValueError: No checkpoint is given, it does not fit the config (keys and shapes are listed), or a name in
            ``class_map`` is none of its classes.
        FileNotFoundError: The checkpoint is not there.
    """

    def __init__(
        self,
        cfg: Union[str, dict],
        ckpt: Optional[str] = None,
        allow_pickle: bool = False,
        input_size: Optional[Sequence[int]] = None,
        class_map: Optional[Union[Sequence[str], Mapping[str, Union[str, int]]]] = None,
        at: str = 'backbone',
    ) -> None:
        if ckpt is None:
            raise ValueError(
                'the teacher has no checkpoint: an untrained teacher only teaches noise. '
                "Give one: teacher=dict(cfg=..., ckpt='teacher.pth')"
            )
        self.ckpt, self.input_size = ckpt, input_size
        self.cfg = load_model_config(cfg)
        self.model: nn.Module = MODELS.build(deepcopy(self.cfg))
        checkpoint = load_checkpoint_file(ckpt, allow_pickle)
        load_strictly(self.model, checkpoint['state_dict'], f'teacher checkpoint {ckpt!r}')
        self.model.requires_grad_(False)
        self.model.eval()
        self.adapter = build_adapter(self.model, at)
        meta = checkpoint.get('meta') or {}
        self.dataset_meta: dict = {'CLASSES': meta.get('CLASSES'), **(meta.get('dataset_meta') or {})}
        self.classes: Optional[Sequence[str]] = names_in(self.dataset_meta)
        self.class_map: Optional[ClassMap] = None
        if class_map is not None:
            self.class_map = ClassMap.of(class_map, self.classes, self.adapter.num_classes)
            self.classes = self.class_map.names

    @property
    def num_classes(self) -> Optional[int]:
        """Number of classes that its outputs tell apart for methods."""
        return self.adapter.num_classes if self.class_map is None else len(self.class_map.index)

    def shared(self, outputs: Any) -> Any:
        """Returns outputs of its head, or of a copy of it, for the classes that the student knows alone."""
        return outputs if self.class_map is None else self.adapter.select_classes(outputs, self.class_map.index)

    @torch.no_grad()
    def extract(self, inputs: Tensor, statistics: Optional[nn.Module] = None) -> Any:
        """Returns detached features of the teacher for its own input ``(N, 3, H, W)``.

        Args:
            inputs: Images as the teacher sees them.
            statistics: A :class:`~mmrkd.models.heads.TeacherStatistics`: BatchNorm normalises by the batch in this
                call, and what drifts by it is written there. Defaults to None: the teacher's own statistics.
        """
        with nullcontext() if statistics is None else statistics.drifting():
            return self.adapter.extract(inputs)

    @torch.no_grad()
    def outputs(self, feats: Any, statistics: Optional[nn.Module] = None) -> Any:
        """Returns detached outputs of the teacher's head, in the form that a model in training gives them.

        Of the classes that the student knows, see ``class_map``.
        """
        with nullcontext() if statistics is None else statistics.drifting():
            return self.shared(self.adapter.training_outputs(feats))

    @torch.no_grad()
    def auxiliary_outputs(self, feats: Any, statistics: Optional[nn.Module] = None) -> list[Any]:
        """Returns detached outputs of the heads that the teacher has in training alone, as :meth:`outputs`."""
        with nullcontext() if statistics is None else statistics.drifting():
            return [self.shared(outputs) for outputs in self.adapter.auxiliary_outputs(feats)]

    @torch.no_grad()
    def region_logits(self, feats: Any, rois: Tensor) -> Tensor:
        """Returns detached scores ``(R, K + 1)`` of regions ``(R, 5)``."""
        return self.adapter.region_logits(feats, rois)

    def fingerprint(self, weights_only: bool = False) -> str:
        """Returns a SHA-256 over all that the teacher knows: equal before and after any training.

        Args:
            weights_only: Weights and buffers, as checkpoints of before have it; otherwise also the numbers that heads,
                assigners and losses keep in Python attributes (DDOD, Dynamic R-CNN). Defaults to False.
        """
        digest = hashlib.sha256()
        for name, value in sorted(_state(self.model).items()):
            digest.update(name.encode() + _bytes(value))
        for name, value in () if weights_only else numbers_in(self.model):
            digest.update(name.encode() + (_bytes(value) if isinstance(value, Tensor) else repr(value).encode()))
        return digest.hexdigest()

    def __deepcopy__(self, memo: dict) -> 'FrozenTeacher':
        # EMA copies the distiller; one teacher is enough for all copies.
        return self


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
