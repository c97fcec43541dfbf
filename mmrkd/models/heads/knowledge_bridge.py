"""The knowledge bridge module (KBM) of SemiOnlineKD: a trainable copy of the teacher's upper part."""

from contextlib import nullcontext
from copy import deepcopy
from typing import Any, Optional

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmrkd.adapters import ModelAdapter, build_adapter
from mmrkd.adapters.split import cut_model, find_split, handing
from mmrkd.models.heads.peer import fit_grid, trainable_copy, without_pretrained
from mmrkd.models.heads.teacher_statistics import TeacherStatistics
from mmrkd.models.pair import Pair
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
        pair: Student and teacher.
        split: Where the copy begins, see :func:`mmrkd.adapters.split.find_split`.
        init: ``'random'``: as the framework initialises such a model, but without pretrained weights, frozen stages
            and norms in evaluation mode, which fresh weights cannot use. ``'teacher'``: a copy of its weights, with
            the settings of its config.
        statistics: BatchNorm statistics that drifted in the lower part while the bridge was trained. Defaults to None:
            those of the teacher.

    Raises:
        KeyError: There is no such module to split at.
        ValueError: The teacher cannot be cut there, or ``init`` is not known.
    """

    def __init__(
        self,
        pair: Pair,
        split: Optional[str],
        init: str = 'random',
        statistics: Optional[TeacherStatistics] = None,
    ) -> None:
        super().__init__()
        if init not in INITS:
            raise ValueError(f'init must be one of {INITS}, found {init!r}')
        self.pair, self.teacher, self.init = pair, pair.teacher, init
        self.__dict__['statistics'] = statistics  # the method's, not a submodule of the bridge
        self.split = find_split(self.teacher.adapter, split)
        whole = trainable_copy(self.teacher.cfg) if init == 'random' else _as_configured(self.teacher.cfg)
        self.model = cut_model(whole, self.split)
        self.adapter: ModelAdapter = build_adapter(self.model, self.teacher.adapter.at)

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
        return fit_grid(self.adapter, feats, self.teacher.adapter.features(view.all_feats))

    @torch.no_grad()
    def predict(self, inputs: Tensor, samples: Any) -> Any:
        """Predicts with the teacher's lower part and the bridge, from images as the student sees them."""
        inputs, samples = self.pair.convert.convert(inputs, samples)
        return self.adapter.predict_through(self._extract_alone, inputs, samples)

    def _extract_alone(self, inputs: Tensor) -> Any:
        """The bridge's features of images as the teacher sees them, behind a pass of the lower part of its own."""
        with self.teacher.adapter.tapped(self.taps) as taps, self._lower_statistics():
            if self.taps:
                self.teacher.adapter.extract(inputs)  # in evaluation mode, whatever the statistics in training
        return self.extract(inputs, taps)

    def whole_state(self) -> dict[str, Tensor]:
        """Returns weights for the teacher's plain config: its lower part and the bridge."""
        drifted = {} if self.statistics is None else self.statistics.named_state()
        return {**self.teacher.model.state_dict(), **drifted, **self.model.state_dict()}

    def _lower_statistics(self) -> Any:
        return nullcontext() if self.statistics is None else self.statistics.fixed()


def _as_configured(cfg: dict) -> nn.Module:
    return MODELS.build(without_pretrained(deepcopy(cfg)))
