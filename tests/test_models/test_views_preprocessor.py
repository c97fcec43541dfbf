"""Several views of an image: named, lazy, and one view is what it always was."""

from copy import deepcopy

import pytest
import torch
from mmengine.dataset import default_collate, pseudo_collate

from mmrkd.models import DistillMethod, ViewsPreprocessor
from mmrkd.models.views_preprocessor import split_views
from mmrkd.testing import build_distiller, build_model, classification_batch, model_inputs, tiny_classifier


class TwoViews(DistillMethod):
    """Compares the student's second view with the teacher's, if it is told to."""

    views = ('strong',)

    def __init__(self, look=True):
        super().__init__()
        self.look, self.seen = look, None

    def losses(self, student, teacher, samples):
        if not self.look:
            return {'loss_one': student.feats[0].square().mean()}
        other, target = student.views['strong'], teacher.views['strong']
        self.seen = (student.inputs, other.inputs, target.inputs)
        assert student.views['weak'] is student and teacher.views['weak'] is teacher
        assert list(student.views) == ['weak', 'strong'] and student.views['strong'] is other, 'computed once'
        return {
            'loss_two': (other.feats[0].mean() - target.feats[0].mean()).square(),
            'loss_logits': other.outputs.square().mean(),
        }


def two_views(collate=default_collate, size=32, number=4):
    batches = [classification_batch(number, size, seed=seed) for seed in range(2)]
    samples = batches[0]['data_samples']
    items = [dict(inputs=[batches[0]['inputs'][i], batches[1]['inputs'][i]], data_samples=samples[i])
             for i in range(number)]  # fmt: skip
    return collate(deepcopy(items)), [batch['inputs'] for batch in batches]


@pytest.mark.parametrize('collate', [default_collate, pseudo_collate])
@pytest.mark.parametrize('number', [3, 4])
def test_each_view_is_what_its_own_batch_would_be(collate, number):
    """At three images a batch could be taken for an image: the channels of each are swapped, and nothing else is."""
    own = build_model(tiny_classifier()).data_preprocessor
    batch, images = two_views(collate, number=number)
    data = ViewsPreprocessor(own)(batch, True)
    expected = [own(dict(inputs=list(view)), True)['inputs'] for view in images]
    assert torch.equal(data['inputs'], expected[0]) and len(data['views']) == 1
    assert torch.equal(data['views'][0], expected[1])
    assert len(data['data_samples']) == number


@pytest.mark.parametrize('training', [True, False])
def test_one_view_is_handed_on_unchanged(training):
    own = build_model(tiny_classifier()).data_preprocessor
    wrapper, batch = ViewsPreprocessor(own), classification_batch()
    found, expected = wrapper(deepcopy(batch), training), own(deepcopy(batch), training)
    assert found.keys() == expected.keys() and torch.equal(found['inputs'], expected['inputs'])
    assert torch.equal(wrapper.mean, own.mean) and not wrapper.state_dict()
    assert wrapper.batch_augments is own.batch_augments
    with pytest.raises(AttributeError):
        _ = wrapper.nonsense


def test_what_a_view_is():
    image = torch.zeros(3, 8, 8)
    assert split_views(torch.zeros(2, 3, 8, 8))[0].shape == (2, 3, 8, 8)
    assert len(split_views([image, image])) == 1
    assert len(split_views([torch.zeros(2, 3, 8, 8)] * 3)) == 3
    assert [len(v) for v in split_views([(image, image), (image, image)])] == [2, 2]


def test_batch_augments_with_several_views_are_refused():
    cfg = tiny_classifier()
    cfg['data_preprocessor']['batch_augments'] = dict(augments=dict(type='Mixup', alpha=0.8))
    own = build_model(cfg).data_preprocessor
    with pytest.raises(ValueError, match=r'batch augments \(Mixup\) .* take batch_augments out'):
        ViewsPreprocessor(own)(two_views()[0], True)


class TestDistiller:
    def build(self, teacher, **kwargs):
        return build_distiller(tiny_classifier(), teacher, [TwoViews(**kwargs)], seed=3).train()

    def losses(self, distiller, batch):
        return distiller(**distiller.data_preprocessor(batch, True), mode='loss')

    def test_a_method_sees_the_views_that_it_asks_for(self, wide_classifier):
        distiller = self.build(wide_classifier)
        batch, images = two_views()
        losses = self.losses(distiller, batch)
        own = distiller.student.data_preprocessor
        first, second = (own(dict(inputs=list(view)), True)['inputs'] for view in images)
        seen = distiller.methods[0].seen
        assert torch.equal(seen[0], first) and torch.equal(seen[1], second) and torch.equal(seen[2], second)
        plain = build_model(tiny_classifier(), seed=3).train()
        feats, target = plain.extract_feat(second)[0], distiller.teacher.extract(second)[0]
        expected = (feats.mean() - target.mean()).square()
        torch.testing.assert_close(losses['twoviews.loss_two'], expected)
        torch.testing.assert_close(losses['twoviews.loss_logits'], plain.head((feats,)).square().mean())

    def test_the_students_own_loss_is_that_of_the_first_view(self, wide_classifier):
        distiller, plain = self.build(wide_classifier), build_model(tiny_classifier(), seed=3).train()
        batch, images = two_views()
        inputs, samples = model_inputs(plain, dict(inputs=images[0], data_samples=batch['data_samples']))
        expected = plain(inputs, samples, mode='loss')['loss']
        assert torch.equal(self.losses(distiller, two_views()[0])['loss'], expected)

    def test_they_are_lazy(self, wide_classifier):
        distiller = self.build(wide_classifier, look=False)
        calls = []
        for model in (distiller.student, distiller.teacher.model):
            model.backbone.register_forward_hook(lambda *_: calls.append(1))
        self.losses(distiller, two_views()[0])
        assert len(calls) == 2

    def test_a_batch_with_too_few_is_refused_with_the_lines_to_paste(self, wide_classifier):
        distiller = self.build(wide_classifier)
        with pytest.raises(ValueError, match=r"reads the views \['strong'\], but the batch has 1 .*MultiView"):
            self.losses(distiller, classification_batch())

    def test_mixed_images_are_refused_while_it_is_built_unless_no_such_method_is_on(self, wide_classifier):
        cfg = tiny_classifier()
        augments = [dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]
        cfg['data_preprocessor']['batch_augments'] = dict(augments=augments)
        with pytest.raises(ValueError, match=r'\(Mixup, CutMix\) mix the images of each view compared by twoviews'):
            build_distiller(cfg, wide_classifier, [TwoViews()])
        off = TwoViews()
        off.weights, off.w = {'w': 'loss_two'}, 0.0
        assert build_distiller(cfg, wide_classifier, [off])

    def test_without_such_a_method_nothing_stands_around_the_preprocessor(self, wide_classifier):
        distiller = build_distiller(tiny_classifier(), wide_classifier, [dict(type='mmrkd.FitNets')])
        assert distiller.data_preprocessor is distiller.student.data_preprocessor
        assert list(self.build(wide_classifier).state_dict()) == list(distiller.student.state_dict())
