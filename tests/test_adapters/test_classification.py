from copy import deepcopy

import pytest
import torch

from mmrkd.adapters.classification import ClassificationAdapter
from mmrkd.testing import NUM_CLASSES, build_model, classification_batch, model_inputs, tiny_classifier


@pytest.fixture
def adapter():
    return ClassificationAdapter(build_model(tiny_classifier()).train())


def count_calls(module):
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_task_loss_on_own_features_is_the_models_loss(adapter):
    inputs, samples = model_inputs(adapter.model, classification_batch())
    expected = adapter.model.loss(inputs, samples)
    feats = adapter.extract(inputs)
    calls = count_calls(adapter.model.backbone)
    losses, outputs = adapter.task_loss(feats, inputs, samples)
    assert not calls
    assert losses.keys() == expected.keys() == {'loss'}
    assert torch.equal(losses['loss'], expected['loss'])
    assert torch.equal(outputs, adapter.model.head(feats))
    assert outputs.shape == (4, NUM_CLASSES)
    assert 'extract_feat' not in vars(adapter.model)
    assert not adapter.head._forward_hooks


def test_prediction_from_own_features_is_the_models_prediction(adapter):
    adapter.model.eval()
    inputs, samples = model_inputs(adapter.model, classification_batch(), training=False)
    with torch.no_grad():
        expected = adapter.model.predict(inputs, deepcopy(samples))
        feats = adapter.extract(inputs)
        calls = count_calls(adapter.model.backbone)
        found = adapter.predict(feats, inputs, deepcopy(samples))
    assert not calls
    for a, b in zip(found, expected):
        assert torch.equal(a.pred_score, b.pred_score)
        assert torch.equal(a.pred_label, b.pred_label)


def test_an_error_leaves_neither_features_nor_hooks_behind(adapter):
    inputs, samples = model_inputs(adapter.model, classification_batch())
    with pytest.raises(RuntimeError):
        adapter.task_loss((torch.zeros(4, 5),), inputs, samples)
    assert 'extract_feat' not in vars(adapter.model)
    assert not adapter.head._forward_hooks


def test_the_feature_is_the_last_stage(adapter):
    first, last = torch.zeros(2, 3), torch.ones(2, 5)
    assert adapter.features((first, last)) == (last,)
    assert adapter.features(last) == (last,)


def test_replace_keeps_the_structure(adapter):
    first, last, new = torch.zeros(2, 3), torch.ones(2, 5), torch.full((2, 5), 2.0)
    replaced = adapter.replace((first, last), {0: new})
    assert replaced[0] is first and replaced[1] is new and len(replaced) == 2
    assert adapter.replace(last, {0: new}) is new
    assert adapter.replace((first, last), {}) == (first, last)


def test_several_features_of_the_last_stage(adapter):
    first, token, distilled, new = (torch.full((2, 5), float(i)) for i in range(4))
    feats = (first, (token, distilled))
    assert [f is t for f, t in zip(adapter.features(feats), (token, distilled))] == [True, True]
    replaced = adapter.replace(feats, {1: new})
    assert replaced[0] is first and replaced[1][0] is token and replaced[1][1] is new


def test_logits_of_two_classifiers_are_summed_as_they_predict(adapter):
    first, second = torch.rand(2, NUM_CLASSES), torch.rand(2, NUM_CLASSES)
    assert torch.equal(adapter.logits((first, second))[0], first + second)


def test_classes_of_a_backbone_that_is_the_classifier(adapter):
    adapter.model.head.num_classes = None
    adapter.model.backbone.num_classes = 7
    assert adapter.num_classes == 7


def test_replaced_features_are_what_the_head_sees(adapter):
    feats = adapter.extract(torch.rand(2, 3, 32, 32))
    zeros = adapter.replace(feats, {0: torch.zeros_like(feats[-1])})
    assert torch.equal(adapter.head_outputs(zeros), adapter.model.head.fc.bias.expand(2, -1))


def test_layout_and_classes(adapter):
    assert adapter.num_classes == NUM_CLASSES
    assert adapter.layout(None) == {'classes': NUM_CLASSES, 'sigmoid': False}
    logits = torch.rand(3, NUM_CLASSES)
    assert adapter.logits(logits)[0] is logits and len(adapter.logits(logits)) == 1


def test_a_head_with_independent_classes():
    cfg = tiny_classifier()
    cfg['head']['loss'] = dict(type='CrossEntropyLoss', use_sigmoid=True)
    assert ClassificationAdapter(build_model(cfg)).layout(None) == {'classes': NUM_CLASSES, 'sigmoid': True}


def test_a_blend_is_made_of_logits(adapter):
    samples = classification_batch(2)['data_samples']
    own = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 4.0]])
    other = torch.tensor([[0.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    found = adapter.blend(own, other, 0.75, samples)
    expected = torch.tensor([[0.5, 3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]).softmax(1)
    assert torch.allclose(torch.stack([sample.pred_score for sample in found]), expected)
    assert [sample.pred_label.item() for sample in found] == [1, 3]
