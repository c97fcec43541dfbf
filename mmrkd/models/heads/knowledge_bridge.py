"""The knowledge bridge module (KBM) of SemiOnlineKD: a trainable copy of the teacher's upper part."""

from copy import deepcopy
from typing import Any, Optional

import torch
from mmengine.model import BaseModule
from torch import Tensor

from mmrkd.adapters import ModelAdapter, build_adapter
from mmrkd.adapters.split import cut_model, find_split, handing
from mmrkd.models.teacher import FrozenTeacher
from mmrkd.registry import MODELS
from mmrkd.structures import TeacherView

INITS = ('random', 'teacher')


class KnowledgeBridge(BaseModule):
    """Structural copy of a teacher's upper part on the teacher's own lower features (arXiv 2111.11747, section 3).

    .. code:: text

        images ── lower part, frozen ──┬── upper part, frozen ──── f_t ── head ── z_t
                                       └── bridge, trainable ───── f_k ── head ── z_k

    The lower part runs once, in the teacher's own pass. The copy is a model of the teacher's class whose lower modules
    are stand-ins, so its own code computes features, losses and predictions, and its state dict has the teacher's keys.

    Gradient contract: what comes from the teacher is detached; gradients flow into the parameters of the copy and
    nowhere else.

    Args:
        teacher: The frozen teacher.
        split: Where the copy begins, see :func:`mmrkd.adapters.split.find_split`.
        init: ``'random'``: as the framework initialises such a model, but without pretrained weights, frozen stages
            and norms in evaluation mode, which fresh weights cannot use. ``'teacher'``: a copy of its weights, with
            the settings of its config.

    Raises:
        KeyError: There is no such module to split at.
        ValueError: The teacher cannot be cut there, or ``init`` is not known.
    """

    def __init__(self, teacher: FrozenTeacher, split: Optional[str], init: str = 'random') -> None:
        super().__init__()
        if init not in INITS:
            raise ValueError(f'init must be one of {INITS}, found {init!r}')
        self.teacher, self.init = teacher, init
        self.split = find_split(teacher.adapter, split)
        self.model = cut_model(MODELS.build(_without_pretrained(deepcopy(teacher.cfg))), self.split)
        if init == 'random':
            self._thaw()
        self.adapter: ModelAdapter = build_adapter(self.model)

    @property
    def taps(self) -> tuple[str, ...]:
        """Modules of the teacher whose outputs the bridge reads."""
        return self.split.taps

    def init_weights(self) -> None:
        """Initialises the copy by the framework's rules, or with the teacher's weights."""
        if self.init == 'random':
            super().init_weights()
        else:
            state = self.teacher.model.state_dict()
            self.model.load_state_dict({name: state[name] for name in self.model.state_dict()})

    def extract(self, inputs: Tensor, taps: dict[str, Any]) -> Any:
        """Returns the bridge's features, in the structure of the teacher's.

        Args:
            inputs: Images as the teacher sees them; read only where nothing lies below the bridge.
            taps: Outputs of :attr:`taps`.
        """
        with handing(self.model, {name: taps[name] for name in self.taps}):
            return self.adapter.extract(inputs)

    def extract_like(self, view: TeacherView) -> Any:
        """Returns the bridge's features for a teacher's view, on the grid that the student has."""
        feats = self.extract(view.inputs, view.taps)
        return self.fit(feats, self.teacher.adapter.features(view.all_feats))

    def fit(self, feats: Any, grid: tuple[Tensor, ...]) -> Any:
        """Cuts off the cells of maps that only the teacher's wider padding added."""
        own = self.adapter.features(feats)
        cropped = {i: f[..., : g.shape[-2], : g.shape[-1]] for i, (f, g) in enumerate(zip(own, grid)) if f.dim() == 4}
        return self.adapter.replace(feats, cropped)

    @torch.no_grad()
    def predict(self, inputs: Tensor, samples: Any) -> Any:
        """Predicts with the teacher's lower part and the bridge, from images as the student sees them."""
        inputs = self.teacher.convert(inputs, samples)
        with self.teacher.adapter.tapped(self.taps) as taps:
            if self.taps:
                self.teacher.adapter.extract(inputs)  # in evaluation mode, whatever the statistics in training
        return self.adapter.predict(self.extract(inputs, taps), inputs, samples)

    def whole_state(self) -> dict[str, Tensor]:
        """Returns weights for the teacher's plain config: its lower part and the bridge."""
        return {**self.teacher.model.state_dict(), **self.model.state_dict()}

    def _thaw(self) -> None:
        self.model.requires_grad_(True)
        for module in self.model.modules():
            if hasattr(module, 'norm_eval'):
                module.norm_eval = False
            if hasattr(module, 'frozen_stages'):
                module.frozen_stages = -1


def _without_pretrained(cfg: Any) -> Any:
    """Drops what would load a file in ``init_weights``, so that each class falls back to its own initialisation."""
    if isinstance(cfg, dict):
        cfg.pop('pretrained', None)
        if 'Pretrained' in str(cfg.get('init_cfg')):
            found = cfg.pop('init_cfg')
            rules = [r for r in (found if isinstance(found, (list, tuple)) else [found]) if 'Pretrained' not in str(r)]
            if rules:
                cfg['init_cfg'] = rules
    for child in cfg.values() if isinstance(cfg, dict) else cfg if isinstance(cfg, (list, tuple)) else ():
        _without_pretrained(child)
    return cfg
