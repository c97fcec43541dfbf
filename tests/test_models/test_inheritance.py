from copy import deepcopy

import pytest
import torch

from mmrkd.models.inheritance import inherit_weights
from mmrkd.testing import (
    NUM_CLASSES,
    build_distiller,
    build_model,
    save_random_teacher,
    tiny_faster_rcnn,
    tiny_retinanet,
)


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    """Twice as wide in the backbone, equal in neck and head."""
    return save_random_teacher(tiny_retinanet(16, 16), tmp_path_factory.mktemp('teacher'), seed=5)


def cascaded(cfg):
    """The same with three second stages, each of which regresses one box for all classes."""
    cfg, head = deepcopy(cfg), cfg['roi_head']
    stages = [dict(head['bbox_head'], reg_class_agnostic=True) for _ in range(3)]
    cfg['roi_head'] = dict(
        type='CascadeRoIHead',
        num_stages=3,
        stage_loss_weights=[1, 0.5, 0.25],
        bbox_roi_extractor=head['bbox_roi_extractor'],
        bbox_head=stages,
    )
    cfg['train_cfg']['rcnn'] = [cfg['train_cfg']['rcnn']] * 3
    return cfg


def parts_that_differ(found, expected):
    return {key.split('.')[0] for key, value in expected.items() if not torch.equal(found[key], value)}


class TestDistiller:
    def test_what_is_named_and_fits_is_the_teachers_and_the_rest_the_students(self, teacher):
        plain = build_model(tiny_retinanet(), seed=3).state_dict()
        distiller = build_distiller(tiny_retinanet(), deepcopy(teacher), [], seed=3, init_student='neck,head')
        own, others = distiller.student.state_dict(), distiller.teacher.model.state_dict()
        for key, value in own.items():
            lateral = key.startswith('neck.lateral') and key.endswith('weight')  # reads channels of the backbone
            inherited = key.startswith(('neck.', 'bbox_head.')) and not lateral
            assert torch.equal(value, others[key] if inherited else plain[key]), key
        assert parts_that_differ(own, plain) == {'neck', 'bbox_head'}

    def test_without_it_the_student_starts_as_the_plain_one(self, teacher):
        plain = build_model(tiny_retinanet(), seed=3).state_dict()
        own = build_distiller(tiny_retinanet(), deepcopy(teacher), [], seed=3, init_student='').student.state_dict()
        assert parts_that_differ(own, plain) == set()

    def test_the_teacher_stays_as_it_was(self, teacher):
        distiller = build_distiller(tiny_retinanet(16), deepcopy(teacher), [], init_student=['bbox_head'])
        before = distiller.teacher.fingerprint()
        assert torch.equal(
            distiller.student.bbox_head.retina_cls.weight, distiller.teacher.model.bbox_head.retina_cls.weight
        )
        with torch.no_grad():
            distiller.student.bbox_head.retina_cls.weight.add_(1)
        assert distiller.teacher.fingerprint() == before

    def test_a_misspelt_part_is_refused_while_building(self, teacher):
        with pytest.raises(ValueError, match=r"init_student='nekc'.*Choose among .*'backbone', 'neck', 'bbox_head'"):
            build_distiller(tiny_retinanet(), deepcopy(teacher), [], init_student='nekc')


class TestReport:
    def test_what_was_copied_and_what_not_and_why(self):
        student, teacher = build_model(tiny_retinanet(8)), build_model(tiny_retinanet(16, stacked_convs=2), seed=1)
        report = inherit_weights(student, teacher, 'neck, bbox_head').splitlines()
        assert report[0].startswith('neck: 9 of 12 copied; not: neck.lateral_convs.0.conv.weight (student')
        assert 'neck.lateral_convs.1.conv.weight (student (16, 32, 1, 1), teacher (16, 64, 1, 1))' in report[0]
        count = len(student.bbox_head.state_dict())
        assert report[1] == f'bbox_head: {count} of {count} copied'

    def test_what_the_teacher_lacks(self):
        student, teacher = build_model(tiny_retinanet(8, stacked_convs=2)), build_model(tiny_retinanet(8), seed=1)
        assert '(not in the teacher)' in inherit_weights(student, teacher, ['head'])

    def test_head_means_every_head(self):
        student, teacher = build_model(tiny_faster_rcnn()), build_model(tiny_faster_rcnn(), seed=1)
        assert parts_that_differ(student.state_dict(), teacher.state_dict()) >= {'rpn_head', 'roi_head', 'backbone'}
        inherit_weights(student, teacher, 'head')
        assert parts_that_differ(student.state_dict(), teacher.state_dict()) == {'backbone', 'neck'}

    def test_of_a_cascade_the_first_stage_whose_box_is_that_of_each_class(self):
        student, teacher = build_model(tiny_faster_rcnn()), build_model(cascaded(tiny_faster_rcnn()), seed=1)
        report = inherit_weights(student, teacher, 'head')
        own, others = student.roi_head.bbox_head, teacher.roi_head.bbox_head[0]
        assert own.fc_reg.weight.shape == (4 * NUM_CLASSES, 32) and others.fc_reg.weight.shape == (4, 32)
        for index in range(NUM_CLASSES):
            assert torch.equal(own.fc_reg.weight[4 * index : 4 * index + 4], others.fc_reg.weight)
            assert torch.equal(own.fc_reg.bias[4 * index : 4 * index + 4], others.fc_reg.bias)
        for name, value in others.state_dict().items():
            assert 'fc_reg' in name or torch.equal(own.state_dict()[name], value)
        line = next(line for line in report.splitlines() if 'first stage' in line)
        assert '8 of the first stage' in line and 'not:' not in line
        assert 'repeated for each class: roi_head.bbox_head.fc_reg.weight, roi_head.bbox_head.fc_reg.bias' in line

    def test_a_regressor_of_another_width_is_left_out(self):
        wide = cascaded(tiny_faster_rcnn())
        for stage in wide['roi_head']['bbox_head']:
            stage['fc_out_channels'] = 24
        report = inherit_weights(build_model(tiny_faster_rcnn()), build_model(wide, seed=1), 'head')
        assert 'roi_head.bbox_head.fc_reg.weight (student (16, 32), teacher (4, 24))' in report

    def test_nothing_that_fits_is_an_error(self):
        student, teacher = build_model(tiny_retinanet(8, 16)), build_model(tiny_retinanet(8, 24))
        with pytest.raises(ValueError, match=r'neck.*nothing in the teacher fits.*teacher \(24, 24, 3, 3\)'):
            inherit_weights(student, teacher, 'neck')
