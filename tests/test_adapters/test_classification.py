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


def arcface(margins=0.5):
    cfg = tiny_classifier()
    cfg['head'] = dict(type='ArcFaceClsHead', num_classes=NUM_CLASSES, in_channels=64, margins=margins)
    return cfg


class TestMargins:
    """ArcFace takes a margin off the true class while it is trained; no prediction has one."""

    def test_outputs_come_without_and_the_loss_with_it(self):
        adapter = ClassificationAdapter(build_model(arcface()).train())
        inputs, samples = model_inputs(adapter.model, classification_batch())
        torch.manual_seed(1)
        expected = adapter.model.loss(inputs, samples)
        feats = adapter.extract(inputs)
        losses, outputs = adapter.task_loss(feats, inputs, samples)
        assert torch.equal(losses['loss'], expected['loss'])
        assert torch.equal(outputs, adapter.head(feats))
        labels = torch.cat([sample.gt_label for sample in samples])
        difference = (outputs - adapter.head(feats, labels)).abs()
        assert difference.gather(1, labels[:, None]).min() > 1 and difference.sum() > 0

    def test_a_student_equal_to_its_teacher_has_nothing_to_learn(self, tmp_path):
        from mmrkd.testing import build_distiller, save_random_teacher

        distiller = build_distiller(arcface(), save_random_teacher(arcface(), tmp_path), [dict(type='mmrkd.KD')])
        distiller.student.load_state_dict(distiller.teacher.model.state_dict())
        distiller.train().student.backbone.eval()
        inputs, samples = model_inputs(distiller, classification_batch())
        losses = distiller.loss(inputs, samples)
        assert losses['kd.loss_kd'].item() == pytest.approx(0, abs=1e-5) and losses['loss'] > 1


@pytest.mark.parametrize(
    'head, expected',
    [
        (dict(type='MultiLabelLinearClsHead', loss=dict(type='AsymmetricLoss')), True),
        (dict(type='MultiLabelLinearClsHead', loss=dict(type='CrossEntropyLoss', use_sigmoid=True)), True),
        (dict(type='MultiLabelLinearClsHead', loss=dict(type='FocalLoss')), True),
        (dict(type='LinearClsHead', loss=dict(type='FocalLoss')), True),
        (dict(loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='multi_label', use_sigmoid=True)), True),
        (dict(loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, num_classes=NUM_CLASSES)), False),
        (dict(loss=dict(type='SeesawLoss', num_classes=NUM_CLASSES)), False),
    ],
    ids=lambda x: x['loss']['type'] if isinstance(x, dict) else str(x),
)
def test_what_a_loss_says_of_the_classes(head, expected):
    cfg = tiny_classifier()
    cfg['head'].update(head)
    assert ClassificationAdapter(build_model(cfg)).sigmoid is expected


class TestMixedLabels:
    def batch(self, adapter):
        inputs, samples = model_inputs(adapter.model, classification_batch())
        for index, sample in enumerate(samples):
            sample.set_gt_score(torch.full((NUM_CLASSES,), 0.1).index_fill_(0, torch.tensor([index]), 0.7))
        return inputs, samples

    def test_a_judge_counts_no_accuracy(self):
        """mmpretrain refuses to: 'cal_acc is pointless'."""
        cfg = tiny_classifier()
        cfg['head']['cal_acc'] = True
        adapter = ClassificationAdapter(build_model(cfg).eval())
        inputs, samples = self.batch(adapter)
        feats = adapter.extract(inputs)
        with pytest.raises(AssertionError, match='pointless'):
            adapter.model.loss(inputs, samples)
        for compute in (adapter.judge, adapter.task_loss):
            losses, outputs = compute(feats, inputs, samples)
            assert set(losses) == {'loss'} and torch.equal(outputs, adapter.head(feats))
        assert adapter.head.cal_acc is True

    def test_of_plain_labels_it_is_counted(self):
        cfg = tiny_classifier()
        cfg['head']['cal_acc'] = True
        adapter = ClassificationAdapter(build_model(cfg).eval())
        inputs, samples = model_inputs(adapter.model, classification_batch())
        assert set(adapter.task_loss(adapter.extract(inputs), inputs, samples)[0]) == {'loss', 'accuracy_top-1'}

    def test_they_are_no_targets(self, adapter):
        with pytest.raises(ValueError, match=r"single class.*target='teacher'.*batch_augments"):
            adapter.targets(self.batch(adapter)[1])


class TestTargets:
    def test_the_class_of_each_image(self, adapter):
        samples = classification_batch(3)['data_samples']
        expected = [sample.gt_label.item() for sample in samples]
        found = adapter.targets(samples)
        assert found.tolist() == expected and found.dtype == torch.long and found.shape == (3,)

    def test_a_score_that_is_one_hot_is_a_class(self, adapter):
        (sample,) = classification_batch(1)['data_samples']
        sample.set_gt_score(torch.tensor([0.0, 0.0, 1.0, 0.0]))
        assert adapter.targets([sample]).tolist() == [2]

    @pytest.mark.parametrize('label', [[0, 2], None])
    def test_several_or_none(self, adapter, label):
        from mmpretrain.structures import DataSample

        sample = DataSample() if label is None else DataSample().set_gt_label(label)
        with pytest.raises(ValueError, match='single class'):
            adapter.targets([sample])


def test_logits_on_a_grid_of_one_cell(adapter):
    logits = torch.rand(3, NUM_CLASSES)
    (grid,) = adapter.logit_maps(logits)
    assert grid.shape == (3, NUM_CLASSES, 1, 1) and torch.equal(grid.flatten(1), logits)


def test_a_head_of_several_tasks_is_not_compared(tmp_path):
    """A named error when it is built, and not a TypeError of None in the first step."""
    from mmrkd.testing import build_distiller, save_random_teacher

    cfg = tiny_classifier()
    one = dict(type='LinearClsHead', num_classes=3)
    cfg['head'] = dict(type='MultiTaskHead', task_heads=dict(a=dict(one), b=dict(one, num_classes=5)), in_channels=64)
    teacher = save_random_teacher(cfg, tmp_path)
    with pytest.raises(ValueError, match='KD compares .*MultiTaskHead: it has one output for each of its tasks'):
        build_distiller(cfg, teacher, [dict(type='mmrkd.KD')])
    build_distiller(cfg, teacher, [dict(type='mmrkd.FitNets')])
