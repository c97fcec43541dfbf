import pytest
import torch
from torch import nn

from mmrkd.adapters.classification import ClassificationAdapter
from mmrkd.adapters.reuse import hiding, reuse_features
from mmrkd.testing import build_model, classification_batch, model_inputs, tiny_classifier


class Model(nn.Module):
    def extract_feat(self, inputs, batch_data_samples=None, stage='neck'):
        return inputs + (1 if stage == 'neck' else 100)

    def loss(self, inputs):
        return self.extract_feat(inputs).sum()

    def predict(self, inputs):
        """Averages an image and its mirror image, as a flip test does."""
        return (self.extract_feat(inputs) + self.extract_feat(inputs.flip(-1)).flip(-1)) / 2


INPUTS = torch.tensor([1.0, 2.0])


class TestReuseFeatures:
    def test_the_model_uses_them(self):
        model = Model()
        with reuse_features(model, INPUTS, torch.tensor([5.0])):
            assert model.loss(INPUTS) == 5
        assert model.loss(INPUTS) == 5.0 and model.extract_feat(INPUTS).tolist() == [2.0, 3.0]

    @pytest.mark.parametrize(
        'call',
        [
            lambda m: m.extract_feat(INPUTS),
            lambda m: m.extract_feat(inputs=INPUTS),
            lambda m: m.extract_feat(INPUTS.view(2)),
            lambda m: m.extract_feat(INPUTS.detach()),
            lambda m: m.extract_feat(INPUTS, batch_data_samples=[object()]),
            lambda m: m.extract_feat(INPUTS, stage='neck'),
        ],
    )
    def test_the_very_inputs_get_them(self, call):
        model, feats = Model(), object()
        with reuse_features(model, INPUTS, feats):
            assert call(model) is feats

    @pytest.mark.parametrize(
        'other',
        [
            INPUTS.clone(),
            INPUTS.flip(0),
            INPUTS[:1],
            INPUTS[1:],
            INPUTS.view(1, 2),
            INPUTS.double(),
            INPUTS.expand(2, 2),
        ],
        ids=['equal', 'flipped', 'head', 'tail', 'reshaped', 'double', 'expanded'],
    )
    def test_other_inputs_get_their_own(self, other):
        model = Model()
        with reuse_features(model, INPUTS, None):
            assert torch.equal(model.extract_feat(other), other + 1)

    def test_a_flip_test_sees_both_images(self):
        model, inputs = Model(), torch.tensor([[1.0, 5.0]])
        feats = model.extract_feat(inputs)
        with reuse_features(model, inputs, feats):
            assert torch.equal(model.predict(inputs), feats)
            assert torch.equal(model.extract_feat(inputs.flip(-1)), feats.flip(-1))

    def test_a_window_of_the_inputs_gets_its_own(self):
        model, inputs = Model(), torch.arange(8.0).view(2, 4)
        with reuse_features(model, inputs, None):
            assert model.extract_feat(inputs[:, :2]).tolist() == [[1, 2], [5, 6]]

    def test_another_stage_is_computed(self):
        model = Model()
        with reuse_features(model, INPUTS, None):
            assert model.extract_feat(INPUTS, stage='backbone').tolist() == [101, 102]

    def test_inputs_that_were_written_into_are_others(self):
        model, inputs = Model(), torch.tensor([1.0])
        with reuse_features(model, inputs, None):
            inputs.mul_(3)
            assert model.extract_feat(inputs).tolist() == [4.0]

    def test_inference_tensors_have_no_version_and_work(self):
        model, feats = Model(), object()
        with torch.inference_mode():
            inputs = torch.ones(2)
        with reuse_features(model, inputs, feats):
            assert model.extract_feat(inputs) is feats

    def test_stages_of_a_classifier(self):
        adapter = ClassificationAdapter(build_model(tiny_classifier()).eval())
        inputs, _ = model_inputs(adapter.model, classification_batch(), training=False)
        expected = adapter.model.extract_feat(inputs, stage='pre_logits')
        with reuse_features(adapter.model, inputs, (torch.zeros(4, 64),)):
            assert adapter.model.extract_feat(inputs)[0].sum() == 0
            assert torch.equal(adapter.model.extract_feat(inputs, stage='pre_logits'), expected)

    def test_a_wrong_call_is_the_models_own_error(self):
        model = Model()
        with reuse_features(model, INPUTS, None), pytest.raises(TypeError, match='inputs'):
            model.extract_feat()

    def test_no_attribute_stays(self):
        model = Model()
        before = dict(vars(model))
        with reuse_features(model, INPUTS, None):
            assert 'extract_feat' in vars(model)
        assert vars(model) == before
        assert model.extract_feat.__func__ is Model.extract_feat

    def test_no_attribute_stays_after_an_error(self):
        model = Model()
        with pytest.raises(AttributeError, match='NoneType'):
            with reuse_features(model, INPUTS, None):
                model.loss(INPUTS)
        assert 'extract_feat' not in vars(model)

    def test_what_the_user_had_set_on_the_instance_is_used_and_put_back(self):
        model = Model()
        own = lambda inputs: inputs * 7  # noqa: E731
        model.extract_feat = own
        with reuse_features(model, INPUTS, 'feats'):
            assert model.extract_feat(INPUTS) == 'feats'
            assert model.extract_feat(INPUTS.clone()).tolist() == [7.0, 14.0]
        assert model.extract_feat is own

    def test_other_models_of_the_class_are_not_touched(self):
        model, other = Model(), Model()
        with reuse_features(model, INPUTS, None):
            assert other.extract_feat(torch.tensor(1.0)) == 2

    def test_blocks_lie_inside_each_other(self):
        model = Model()
        with reuse_features(model, INPUTS, 'outer'):
            with reuse_features(model, INPUTS, 'inner'):
                assert model.extract_feat(INPUTS) == 'inner'
            assert model.extract_feat(INPUTS) == 'outer'


def test_a_submodule_can_be_hidden_too():
    model = nn.Module()
    model.part = nn.Linear(1, 1)
    part = model.part
    with hiding(model, 'part', None):
        assert model.part is None
    assert model.part is part and list(model.state_dict()) == ['part.weight', 'part.bias']
