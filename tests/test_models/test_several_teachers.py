"""Named teachers: each method listens to its own, levels are matched for each pair, and nobody disturbs another."""

from copy import deepcopy

import pytest
import torch

from mmrkd.models import Distiller, FrozenTeacher
from mmrkd.testing import (
    build_distiller,
    classification_batch,
    detection_batch,
    model_inputs,
    save_random_teacher,
    tiny_classifier,
    tiny_retinanet,
)

HINT = dict(type='mmrkd.FitNets')


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """Two teachers of other widths, the second with another set of levels and another normalisation."""
    folder = tmp_path_factory.mktemp('several')
    other = tiny_retinanet(10, 20, strides=(8, 16, 32, 64))
    other['data_preprocessor'] = dict(other['data_preprocessor'], mean=[100.0] * 3, std=[50.0] * 3)
    return dict(a=save_random_teacher(tiny_retinanet(12, 24), folder, 5), b=save_random_teacher(other, folder, 6))


def build(saved, *methods, **kwargs):
    teachers = {name: deepcopy(teacher) for name, teacher in saved.items()}
    cfg = dict(type='mmrkd.Distiller', student=tiny_retinanet(), teachers=teachers, methods=list(methods), **kwargs)
    from mmrkd.testing import build_model

    return build_model(cfg, seed=3)


def losses_of(distiller, batch):
    inputs, samples = model_inputs(distiller, batch)
    return {k: v for k, v in distiller.train()(inputs, samples, mode='loss').items() if '.' in k}


class TestTwoAtOnce:
    def test_each_pair_has_its_own_levels_and_conversion(self, saved):
        distiller = build(saved, dict(HINT, teacher='a'), dict(HINT, teacher='b'))
        a, b = distiller.pairs['a'], distiller.pairs['b']
        assert a.match.teacher_channels == [24] * 3 and b.match.teacher_channels == [20] * 3
        assert len(a.match.teacher_levels) == 3 and len(b.match.teacher_levels) == 4
        assert a.convert.same_pixels and not b.convert.same_pixels

    def test_each_method_loses_what_it_loses_alone(self, saved):
        both = build(saved, dict(HINT, teacher='a', name='x'), dict(HINT, teacher='b', name='y'))
        found = losses_of(both, detection_batch())
        assert found.keys() == {'x.loss_feat', 'y.loss_feat'}
        for name, teacher in (('x', 'a'), ('y', 'b')):
            alone = build_distiller(tiny_retinanet(), deepcopy(saved[teacher]), [dict(HINT, name=name)], seed=3)
            alone.methods[name].load_state_dict(both.methods[name].state_dict())
            expected = losses_of(alone, detection_batch())
            assert torch.equal(found[f'{name}.loss_feat'], expected[f'{name}.loss_feat'])

    def test_a_teacher_runs_once_however_many_listen_and_not_at_all_if_none_does(self, saved):
        distiller = build(saved, dict(HINT, teacher='a'), dict(type='mmrkd.AttentionTransfer', teacher='a'))
        calls = dict(a=[], b=[])
        for name, teacher in distiller.teachers.items():
            teacher.model.backbone.register_forward_hook(lambda *_, name=name: calls[name].append(1))
        losses_of(distiller, detection_batch())
        assert (len(calls['a']), len(calls['b'])) == (1, 0)

    def test_neither_changes_nor_belongs_to_the_distiller_and_both_move_with_it(self, saved):
        distiller = build(saved, dict(HINT, teacher='a'), dict(type='mmrkd.ERA', teacher='b'))
        before = {name: t.fingerprint() for name, t in distiller.teachers.items()}
        optimizer = torch.optim.SGD(distiller.parameters(), 0.1)
        for seed in range(2):
            inputs, samples = model_inputs(distiller, detection_batch(seed=seed))
            distiller.parse_losses(distiller.train()(inputs, samples, mode='loss'))[0].backward()
            optimizer.step()
        assert {name: t.fingerprint() for name, t in distiller.teachers.items()} == before
        assert not any('teacher' in key for key in distiller.state_dict() if 'teacher_' not in key)
        distiller.double()
        assert {p.dtype for t in distiller.teachers.values() for p in t.model.parameters()} == {torch.float64}

    def test_each_is_a_variant(self, saved):
        distiller = build(saved, dict(HINT, teacher='a')).eval()
        assert tuple(distiller.variants) == ('student', 'teacher.a', 'teacher.b')
        inputs, samples = model_inputs(distiller, detection_batch(), False)
        found = {}
        for variant in ('teacher.a', 'teacher.b'):
            distiller.set_variant(variant)
            found[variant] = distiller(inputs, deepcopy(samples), mode='predict')[0].pred_instances.scores
        assert not torch.equal(found['teacher.a'][:5], found['teacher.b'][:5])

    def test_a_list_makes_a_copy_of_the_method_for_each(self, saved):
        distiller = build(saved, dict(HINT, teacher=['a', 'b'], name='hint'))
        assert list(distiller.methods) == ['hint_a', 'hint_b']
        assert [m.pair.match.teacher_channels[0] for m in distiller.methods.values()] == [24, 20]
        assert losses_of(distiller, detection_batch()).keys() == {'hint_a.loss_feat', 'hint_b.loss_feat'}


class TestShortForm:
    def test_teacher_is_the_default_one_beside_others(self, saved):
        distiller = build(dict(b=saved['b']), HINT, dict(HINT, teacher='b'), teacher=deepcopy(saved['a']))
        assert list(distiller.teachers) == ['default', 'b']
        assert (
            distiller.teacher is distiller.teachers['default'] and distiller.match is distiller.pairs['default'].match
        )
        assert [m.teacher for m in distiller.methods.values()] == ['default', 'b']
        assert tuple(distiller.variants) == ('student', 'teacher', 'teacher.b')

    def test_the_only_one_is_meant_whatever_it_is_called(self, saved):
        distiller = build(dict(big=saved['a']), HINT)
        assert distiller.methods['fitnets'].teacher == 'big' and tuple(distiller.variants) == ('student', 'teacher')

    def test_both_forms_of_one_are_refused(self, saved):
        with pytest.raises(ValueError, match='give one of them'):
            build(dict(default=saved['b']), HINT, teacher=deepcopy(saved['a']))

    @pytest.mark.parametrize(
        'method, message',
        [
            (HINT, r"listens to the teacher 'default', but the distiller has the teachers \['a', 'b'\]"),
            (dict(HINT, teacher='c'), "listens to the teacher 'c'"),
            (dict(HINT, teacher=None), 'listens to the teacher None'),
        ],
    )
    def test_one_that_is_not_there_is_refused(self, saved, method, message):
        with pytest.raises(ValueError, match=message):
            build(saved, method)


class TestNoTeacher:
    def test_deep_mutual_learning_needs_none(self):
        distiller = build_distiller(tiny_classifier(), None, [dict(type='mmrkd.DeepMutualLearning')], seed=3).train()
        assert distiller.teacher is None and distiller.match is None
        assert tuple(distiller.variants) == ('student', 'peer')
        inputs, samples = model_inputs(distiller, classification_batch())
        losses = distiller(inputs, samples, mode='loss')
        name = 'deepmutuallearning'
        assert set(losses) == {'loss'} | {f'{name}.loss_{t}' for t in ('peer_task', 'student_peer', 'peer_student')}
        distiller.parse_losses(losses)[0].backward()
        assert all(p.grad is not None for p in distiller.parameters() if p.requires_grad)

    def test_the_peer_has_the_students_config_or_its_own(self):
        alike = build_distiller(tiny_classifier(8), None, [dict(type='mmrkd.DeepMutualLearning')])
        peer = alike.methods[0].peer.model
        assert [v.shape for v in peer.state_dict().values()] == [v.shape for v in alike.student.state_dict().values()]
        assert not torch.equal(peer.head.fc.weight, alike.student.head.fc.weight)
        wide = build_distiller(
            tiny_classifier(8), None, [dict(type='mmrkd.DeepMutualLearning', peer=tiny_classifier(12))]
        )
        assert wide.methods[0].peer.model.head.fc.weight.shape[1] == 96
        assert wide.variants['peer'].build().head.fc.weight.shape[1] == 96

    def test_what_needs_one_says_so(self):
        with pytest.raises(
            ValueError, match=r'fitnets listens to .*but the distiller has none. Give teacher=dict\(cfg'
        ):
            build_distiller(tiny_classifier(), None, [HINT])
        with pytest.raises(ValueError, match='needs a teacher to start from'):
            build_distiller(tiny_classifier(), None, [], init_student='head')

    def test_off_is_off_without_one(self):
        from mmrkd.testing import build_model

        distiller, plain = build_distiller(tiny_classifier(), None, [], seed=3), build_model(tiny_classifier(), seed=3)
        inputs, samples = model_inputs(plain, classification_batch())
        expected = plain.train()(inputs, deepcopy(samples), mode='loss')['loss']
        assert torch.equal(distiller.train()(inputs, deepcopy(samples), mode='loss')['loss'], expected)


class TestShared:
    """Two distillers with one teacher."""

    def test_each_keeps_its_own_conversion(self, saved):
        teacher = FrozenTeacher(**deepcopy(saved['a']))
        darker = tiny_retinanet()
        darker['data_preprocessor'] = dict(darker['data_preprocessor'], mean=[0.0] * 3)
        first, second = (Distiller(student, teacher, [HINT]) for student in (tiny_retinanet(), darker))
        assert first.teacher is second.teacher
        assert first.pair.convert.same_pixels and not second.pair.convert.same_pixels
        image = torch.zeros(1, 3, 32, 32)
        assert torch.equal(first.pair.convert(image), image)
        assert torch.allclose(second.pair.convert(image), torch.full_like(image, -1.0))

    def test_emptying_a_distiller_leaves_the_teacher_whole(self, saved):
        distiller = build(saved, dict(HINT, teacher='a'))
        before = {name: t.fingerprint() for name, t in distiller.teachers.items()}
        weights = distiller.student.backbone.conv1.weight.clone()
        distiller.to_empty(device='cpu')
        assert {name: t.fingerprint() for name, t in distiller.teachers.items()} == before
        assert not torch.equal(distiller.student.backbone.conv1.weight, weights) or weights.eq(0).all()
        assert list(distiller.teachers) == ['a', 'b']


class TestTeacherOfAnotherSize:
    """A detector's teacher that sees the images at twice the student's resolution."""

    def build(self, saved, *methods, **kwargs):
        teacher = dict(deepcopy(saved['a']), input_size=(192, 192))
        return build_distiller(tiny_retinanet(), teacher, list(methods), seed=3, **kwargs)

    def test_its_maps_are_interpolated_if_that_is_allowed(self, saved):
        distiller = self.build(saved, HINT, resize='bilinear').train()
        inputs, samples = model_inputs(distiller, detection_batch(size=96))
        pair = distiller.pair
        view = pair.teacher_view(
            pair.teacher_pass(inputs, samples), pair.student_feats(distiller.adapter.extract(inputs))
        )
        assert view.inputs.shape[2:] == (192, 192) and [f.shape[-1] for f in view.all_feats] == [24, 12, 6]
        assert [f.shape[-1] for f in view.feats] == [12, 6, 3]
        expected = torch.nn.functional.interpolate(view.all_feats[0], (12, 12), mode='bilinear', align_corners=False)
        assert torch.equal(view.feats[0], expected), 'resized, and not the upper left quarter of it'
        assert torch.isfinite(distiller(inputs, samples, mode='loss')['fitnets.loss_feat'])

    def test_otherwise_it_is_refused_with_the_way_out(self, saved):
        with pytest.raises(ValueError, match="allow its maps to be interpolated .resize='bilinear'"):
            self.build(saved, HINT)

    def test_its_head_would_judge_in_other_pixels(self, saved):
        with pytest.raises(ValueError, match='ERA with TWI or a KL term compares maps cell by cell'):
            self.build(saved, dict(type='mmrkd.ERA'), resize='bilinear')
        self.build(saved, dict(type='mmrkd.ERA', twi_on='none', w_kd=0.0), resize='bilinear')
