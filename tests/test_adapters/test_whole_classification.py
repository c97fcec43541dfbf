"""Classifiers without a head of their own; their libraries are not needed: the wrapper is built around a tiny model."""

from types import SimpleNamespace

import pytest
import torch
from mmpretrain.models import HuggingFaceClassifier, TimmClassifier
from mmpretrain.models.classifiers.base import BaseClassifier
from torch import nn

from mmrkd.adapters import build_adapter
from mmrkd.models import OutputMimicry
from mmrkd.registry import MODELS
from mmrkd.testing import (
    NUM_CLASSES,
    build_distiller,
    classification_batch,
    model_inputs,
    save_random_teacher,
    tiny_classifier,
)


class Net(nn.Module):
    """Classes of a library's own; ``huge`` returns an object with logits, as transformers does."""

    def __init__(self, huge):
        super().__init__()
        self.huge, self.norm, self.fc = huge, nn.BatchNorm2d(3), nn.Linear(3, NUM_CLASSES)
        if huge:
            self.config = SimpleNamespace(num_labels=NUM_CLASSES)
        else:
            self.num_classes = NUM_CLASSES

    def forward(self, inputs):
        logits = self.fc(self.norm(inputs).mean((2, 3)))
        return SimpleNamespace(logits=logits) if self.huge else logits


def _init(self, data_preprocessor=None, init_cfg=None, use_sigmoid=False):
    BaseClassifier.__init__(self, init_cfg=init_cfg, data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor'))
    self.model = Net(isinstance(self, HuggingFaceClassifier))
    self.loss_module = MODELS.build(dict(type='mmpretrain.CrossEntropyLoss', use_sigmoid=use_sigmoid))


@pytest.fixture(params=[TimmClassifier, HuggingFaceClassifier], ids=['timm', 'hugging face'])
def cfg(request):
    kind = type(f'Tiny{request.param.__name__}', (request.param,), {'__init__': _init})
    MODELS.register_module(module=kind, force=True)
    yield dict(type=f'mmrkd.{kind.__name__}')
    del MODELS.module_dict[kind.__name__]


@pytest.fixture
def adapter(cfg):
    return build_adapter(MODELS.build(cfg))


def test_its_output_is_its_logits(adapter):
    feats, layout = adapter.dry_run()
    assert layout == {'classes': NUM_CLASSES, 'sigmoid': False} and adapter.head is None
    assert [(level.channels, level.stride) for level in adapter.levels(feats)] == [(NUM_CLASSES, None)]
    inputs = torch.rand(2, 3, 8, 8)
    logits = adapter.extract(inputs)
    assert torch.equal(adapter.logits(adapter.head_outputs(logits))[0], logits) and logits.shape == (2, NUM_CLASSES)
    assert adapter.num_classes == NUM_CLASSES


def test_losses_and_predictions_are_the_models_own_in_one_pass(adapter):
    inputs, samples = model_inputs(adapter.model, classification_batch())
    adapter.model.eval()
    expected = adapter.model.loss(inputs, samples)['loss']
    scores = [sample.pred_score for sample in adapter.model.predict(inputs, [s.clone() for s in samples])]
    feats, calls = adapter.extract(inputs), []
    adapter.model.model.register_forward_hook(lambda *_: calls.append(1))
    losses, outputs = adapter.task_loss(feats, inputs, samples)
    assert torch.equal(losses['loss'], expected) and outputs is feats
    assert torch.equal(adapter.judge(feats, inputs, samples)[0]['loss'], expected)
    found = adapter.predict(feats, inputs, [s.clone() for s in samples])
    assert all(torch.equal(a.pred_score, b) for a, b in zip(found, scores)) and not calls
    blended = adapter.blend(feats, torch.zeros_like(feats), 0.5, [s.clone() for s in samples])
    assert torch.allclose(blended[0].pred_score, (feats[0] / 2).softmax(0))


def test_independent_classes(cfg):
    assert build_adapter(MODELS.build(dict(cfg, use_sigmoid=True))).sigmoid


def test_equal_logits_leave_nothing_to_learn(adapter):
    logits = torch.randn(3, NUM_CLASSES)
    assert OutputMimicry(adapter)('loss', 1.0, logits, logits)['loss'].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize('method', ['KD', 'FitNets', 'DeepMutualLearning'])
def test_it_learns_and_teaches(cfg, method, tmp_path):
    teacher = save_random_teacher(tiny_classifier(), tmp_path)
    own = save_random_teacher(cfg, tmp_path, seed=1)
    for student, taught in ((cfg, teacher), (tiny_classifier(), own)):
        if method == 'DeepMutualLearning' and taught is own:
            continue  # its peer is cut out of a backbone
        distiller = build_distiller(student, taught, [dict(type=f'mmrkd.{method}')]).train()
        inputs, samples = model_inputs(distiller, classification_batch())
        losses = distiller.loss(inputs, samples)
        assert any('.' in name for name in losses)
        sum(value for name, value in losses.items() if 'loss' in name).backward()
        assert all(p.grad is not None for p in distiller.student.parameters())
