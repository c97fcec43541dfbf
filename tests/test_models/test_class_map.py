"""A teacher of other classes: what it shares with the student is found by name."""

from copy import deepcopy

import pytest
import torch
from reference import opinionated_teacher, second_teacher

from mmrkd.adapters import build_adapter
from mmrkd.models import FrozenTeacher
from mmrkd.models.class_map import ClassMap
from mmrkd.models.losses import kl_divergence, sigmoid_kl
from mmrkd.testing import (
    build_distiller,
    build_model,
    classification_batch,
    detection_batch,
    model_inputs,
    tiny_classifier,
    tiny_faster_rcnn,
    tiny_gfl,
    tiny_retinanet,
)

KNOWN = ('person', 'bicycle', 'cat', 'dog', 'chair', 'cup', 'sheep')
OURS = dict(dog='dog', mug='cup', human='person', cat=2)
INDEX = [3, 5, 0, 2]


def named(cfg, folder, seed, names=KNOWN):
    """A teacher whose checkpoint says what its classes are called."""
    teacher = opinionated_teacher(cfg, folder, seed)
    checkpoint = torch.load(teacher['ckpt'], weights_only=True)
    checkpoint['meta'] = dict(dataset_meta=dict(classes=names))
    torch.save(checkpoint, teacher['ckpt'])
    return teacher


def of_seven(cfg):
    cfg = deepcopy(cfg)
    cfg.get('bbox_head', cfg.get('head'))['num_classes'] = 7
    return cfg


@pytest.fixture(scope='module')
def teachers(tmp_path_factory):
    folder = tmp_path_factory.mktemp('named')
    cfgs = dict(
        classifier=tiny_classifier(12, 7), retinanet=of_seven(tiny_retinanet(12, 24)), gfl=of_seven(tiny_gfl(12, 24))
    )
    return {kind: named(cfg, folder, seed) for seed, (kind, cfg) in enumerate(cfgs.items(), start=31)}


def build(student, teacher, *methods, batch=classification_batch, **options):
    teacher = dict(teacher, class_map=options.pop('class_map', OURS))
    dtype = options.pop('dtype', torch.float64)  # NMS knows single precision alone
    distiller = build_distiller(student, teacher, list(methods), seed=3).to(dtype).train()
    inputs, samples = model_inputs(distiller, batch())
    return distiller, inputs.to(dtype), samples


class TestNames:
    def test_they_are_looked_up(self):
        assert ClassMap.of(OURS, KNOWN, 7) == ClassMap(('dog', 'mug', 'human', 'cat'), tuple(INDEX))
        assert ClassMap.of(['cup', 'cat'], KNOWN, 7) == ClassMap(('cup', 'cat'), (5, 2))
        assert ClassMap.of(dict(a=1, b=0), None, 2).index == (1, 0)

    @pytest.mark.parametrize(
        'given, classes, message',
        [
            (['cup', 'dgo'], KNOWN, r"no classes 'dgo', did you mean 'dog'\?"),
            (['cup'], None, 'has no names of classes'),
            (dict(a=7), KNOWN, r'from 0 to 7 - 1 .* found \[7\]'),
            (dict(a='dog', b=3), KNOWN, 'a place of its own'),
            (['dog', 'dog'], KNOWN, 'a place of its own'),
            ([], KNOWN, 'a place of its own'),
        ],
        ids=str,
    )
    def test_those_that_are_not_there_are_named(self, given, classes, message):
        with pytest.raises(ValueError, match=message):
            ClassMap.of(given, classes, 7)

    def test_each_class_of_the_student_is_named(self, teachers):
        with pytest.raises(ValueError, match=r"class_map names 2 classes \['dog', 'cat'\], the student has 4"):
            build(tiny_classifier(8), teachers['classifier'], dict(type='mmrkd.KD'), class_map=['dog', 'cat'])

    def test_without_a_map_the_way_out_is_told(self, teachers):
        with pytest.raises(ValueError, match='student has 4 classes, the teacher 7.*class_map of the teacher'):
            build_distiller(tiny_classifier(8), teachers['classifier'], [dict(type='mmrkd.KD')])

    def test_they_are_those_that_the_data_is_compared_with(self, teachers):
        """By ClassCheckHook and the pre-flight check, which know nothing of maps."""
        assert FrozenTeacher(**teachers['classifier'], class_map=OURS).classes == tuple(OURS)
        assert FrozenTeacher(**teachers['classifier']).classes == KNOWN


class TestClassifiers:
    def test_the_logits_of_shared_classes_are_compared(self, teachers):
        distiller, inputs, samples = build(tiny_classifier(8), teachers['classifier'], dict(type='mmrkd.KD', tau=2.0))
        plain, model = second_teacher(teachers['classifier']), build_model(tiny_classifier(8), seed=3).double().train()
        z_t = plain.head(plain.extract_feat(inputs))[:, INDEX]
        expected = kl_divergence(model.head(model.extract_feat(inputs)), z_t, 2.0)
        before = distiller.teacher.fingerprint()
        assert distiller.loss(inputs, samples)['kd.loss_kd'].item() == pytest.approx(expected.item(), rel=1e-6)
        assert distiller.teacher.fingerprint() == before

    def test_the_teacher_predicts_the_classes_of_the_student(self, teachers):
        distiller, inputs, samples = build(tiny_classifier(8), teachers['classifier'], dict(type='mmrkd.KD'))
        distiller.eval().set_variant('teacher')
        found = torch.stack([s.pred_score for s in distiller(inputs, samples, mode='predict')])
        plain = second_teacher(teachers['classifier'])
        torch.testing.assert_close(found, plain.head(plain.extract_feat(inputs))[:, INDEX].softmax(1))

    def test_all_methods_on_outputs_take_it(self, teachers):
        names = ('DKD', 'DIST', 'WTTM', 'R2KD', 'SSKD', 'DSKD')
        distiller, inputs, samples = build(
            tiny_classifier(8), teachers['classifier'], *(dict(type=f'mmrkd.{n}') for n in names)
        )
        losses = distiller.loss(inputs, samples)
        assert {name.split('.')[0] for name in losses if '.' in name} == {n.lower() for n in names}
        assert all(torch.isfinite(value).all() for value in losses.values())

    def test_what_runs_the_teachers_head_refuses_it(self, teachers):
        for method in (dict(type='mmrkd.ERA'), dict(type='mmrkd.SemiOnlineKD')):
            with pytest.raises(ValueError, match="runs the teacher's own head, which knows other classes"):
                build(tiny_classifier(8), teachers['classifier'], method)


class TestDetectors:
    @pytest.mark.parametrize('kind', ['retinanet', 'gfl'])
    def test_logits_and_boxes_are_those_of_a_head_of_these_classes(self, teachers, kind):
        """Compared with a teacher out of whose last layer the other classes were cut."""
        student = tiny_retinanet() if kind == 'retinanet' else tiny_gfl()
        method = dict(type='mmrkd.KD', w_box=0.5)
        distiller, inputs, samples = build(student, teachers[kind], method, batch=detection_batch)
        found = distiller.loss(inputs, samples)
        cut = deepcopy(student)
        cut['backbone'].update(base_channels=12, stem_channels=12)
        cut['neck'].update(in_channels=[12, 24, 48, 96], out_channels=24)
        cut['bbox_head'].update(in_channels=24, feat_channels=24)
        model, state = build_model(cut), torch.load(teachers[kind]['ckpt'], weights_only=True)['state_dict']
        name = 'bbox_head.retina_cls' if kind == 'retinanet' else 'bbox_head.gfl_cls'
        for part in ('weight', 'bias'):
            value = state[f'{name}.{part}']
            state[f'{name}.{part}'] = value.reshape(-1, 7, *value.shape[1:])[:, INDEX].flatten(0, 1)
        model.load_state_dict(state)
        teacher = FrozenTeacher.__new__(FrozenTeacher)
        teacher.__dict__.update(distiller.teacher.__dict__)
        teacher.model, teacher.class_map = model.requires_grad_(False).eval(), None
        teacher.adapter = build_adapter(model)
        other = build_distiller(student, teacher, [method], seed=3).double().train()
        expected = other.loss(inputs, samples)
        assert set(found) == set(expected) >= {'kd.loss_kd', 'kd.loss_kd_box'}
        for key in ('kd.loss_kd', 'kd.loss_kd_box'):
            torch.testing.assert_close(found[key], expected[key])
        logits = torch.cat(distiller.adapter.logits(teacher.outputs(teacher.extract(inputs))))
        own = torch.cat(distiller.adapter.logits(distiller.adapter.training_outputs(distiller.adapter.extract(inputs))))
        assert found['kd.loss_kd'].item() == pytest.approx(sigmoid_kl(own, logits).item(), rel=1e-3)

    def test_the_teacher_predicts_the_classes_of_the_student(self, teachers):
        distiller, inputs, samples = build(
            tiny_retinanet(), teachers['retinanet'], dict(type='mmrkd.KD'), batch=detection_batch, dtype=torch.float32
        )
        distiller.eval().set_variant('teacher')
        labels = torch.cat([s.pred_instances.labels for s in distiller(inputs, samples, mode='predict')])
        assert len(labels) and labels.max() < 4

    def test_a_first_stage_knows_no_classes(self, tmp_path):
        teacher = named(tiny_faster_rcnn(12, 24, num_classes=7), tmp_path, 35)
        distiller, inputs, samples = build(
            tiny_faster_rcnn(), teacher, dict(type='mmrkd.KD'), batch=detection_batch, dtype=torch.float32
        )
        assert distiller.loss(inputs, samples)['kd.loss_kd'] > 0
        with pytest.raises(ValueError, match='knows other classes than the data'):
            distiller.eval().set_variant('teacher')
            distiller(inputs, samples, mode='predict')
