"""A whole model that is trained beside the student."""

from copy import deepcopy
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmrkd.adapters import ModelAdapter, build_adapter
from mmrkd.models.input_converter import InputConverter
from mmrkd.registry import MODELS


class Peer(BaseModule):
    """A model of some config that starts from the framework's own initialisation and learns while the student does.

    Gradient contract: gradients flow into its parameters and nowhere else.

    Args:
        cfg: Model config. Not changed.
        student: Adapter of the student, on whose images it is trained.
    """

    def __init__(self, cfg: dict, student: ModelAdapter) -> None:
        super().__init__()
        self.cfg = cfg
        self.model = trainable_copy(cfg)
        self.adapter: ModelAdapter = build_adapter(self.model, student.at)
        preprocessors = student.model.data_preprocessor, self.model.data_preprocessor
        self.convert = InputConverter(*preprocessors, padded=student.declares_padding)

    def extract(self, inputs: Tensor) -> Any:
        """Returns the peer's features of images as it sees them, in its own structure."""
        return self.adapter.extract(inputs)

    @torch.no_grad()
    def predict(self, inputs: Tensor, samples: Any) -> Any:
        """Predicts from images as the student sees them."""
        inputs, samples = self.convert.convert(inputs, samples)
        return self.model(inputs, samples, mode='predict')

    def whole_state(self) -> dict[str, Tensor]:
        """Returns the weights for its plain config."""
        return self.model.state_dict()


def fit_grid(adapter: ModelAdapter, feats: Any, grid: tuple[Tensor, ...]) -> Any:
    """Cuts off the cells of maps that only wider padding added.

    Args:
        adapter: Adapter of the model that computed the features.
        feats: Its features, in its own structure.
        grid: Maps of the sizes that are wanted, one for each level.
    """
    own = adapter.features(feats)
    cropped = {i: f[..., : g.shape[-2], : g.shape[-1]] for i, (f, g) in enumerate(zip(own, grid)) if f.dim() == 4}
    return adapter.replace(feats, cropped)


def trainable_copy(cfg: Any) -> nn.Module:
    """Builds a model of which every part learns: no pretrained weights, no frozen stage, no norm held in evaluation."""
    model = MODELS.build(without_pretrained(deepcopy(cfg)))
    model.requires_grad_(True)
    for module in model.modules():
        if hasattr(module, 'norm_eval'):
            module.norm_eval = False
        if hasattr(module, 'frozen_stages'):
            module.frozen_stages = -1
    return model


def without_pretrained(cfg: Any) -> Any:
    """Drops what would load a file in ``init_weights``, so that each class falls back to its own initialisation."""
    if isinstance(cfg, dict):
        cfg.pop('pretrained', None)
        if 'Pretrained' in str(cfg.get('init_cfg')):
            found = cfg.pop('init_cfg')
            rules = [r for r in (found if isinstance(found, (list, tuple)) else [found]) if 'Pretrained' not in str(r)]
            if rules:
                cfg['init_cfg'] = rules
    for child in cfg.values() if isinstance(cfg, dict) else cfg if isinstance(cfg, (list, tuple)) else ():
        without_pretrained(child)
    return cfg
