"""Methods together with what was built for other methods: own sizes of images, resizing, heads of two forms."""

import pytest
import torch
from test_unequal_pairs import tiny_fcos

from mmrkd.adapters import build_adapter
from mmrkd.adapters.detection import DetectionAdapter
from mmrkd.testing import (
    NUM_CLASSES,
    build_distiller,
    build_model,
    classification_batch,
    detection_batch,
    model_inputs,
    paired,
    save_random_teacher,
    tiny_classifier,
    tiny_retinanet,
)


def step(student, teacher, method, batch, **kwargs):
    distiller = build_distiller(student, teacher, [method], **kwargs).train()
    inputs, samples = model_inputs(distiller, batch)
    return distiller, distiller(inputs, samples, mode='loss')


class TestMapsOfTaps:
    METHODS = {
        'attention': (tiny_classifier(), dict(type='mmrkd.AttentionTransfer')),
        'residual': (paired(tiny_classifier(), 6, 3), dict(type='mmrkd.ResidualKD')),
    }

    @pytest.mark.parametrize('name', METHODS)
    def test_a_teacher_with_an_input_size_of_its_own_is_refused(self, name, wide_classifier):
        """Its maps have other cells; cutting them to the student's would compare the upper left corner with all."""
        student, method = self.METHODS[name]
        with pytest.raises(ValueError, match=r'compares maps cell by cell.*input_size of its own \(64, 64\)'):
            build_distiller(student, dict(wide_classifier, input_size=(64, 64)), [method])

    def test_vectors_and_logits_go_with_an_input_size(self, wide_classifier):
        teacher = dict(wide_classifier, input_size=(64, 64))
        for kind in ('KD', 'DeepMutualLearning', 'SemiOnlineKD'):
            _, losses = step(tiny_classifier(), teacher, dict(type=f'mmrkd.{kind}'), classification_batch())
            assert len(losses) > 1 and all(torch.isfinite(value) for value in losses.values())

    @pytest.mark.parametrize('method', ['AttentionTransfer', 'ResidualKD'])
    def test_strides_are_compared_and_not_cells(self, method, wide_retinanet, monkeypatch):
        """A teacher whose dry run takes larger images than the student's, as one that shrinks small ones away does."""
        built = build_adapter

        def adapter_of(model, *args):
            adapter = built(model, *args)
            if model.backbone.base_channels == 16:
                adapter.dry_sizes = (256,)
            return adapter

        monkeypatch.setattr('mmrkd.models.teacher.build_adapter', adapter_of)
        student = paired(tiny_retinanet(), 6, 3) if method == 'ResidualKD' else tiny_retinanet()
        distiller, losses = step(student, wide_retinanet, dict(type=f'mmrkd.{method}'), detection_batch())
        assert (distiller.adapter.dry_size, distiller.teacher.adapter.dry_size) == (128, 256)
        assert all(torch.isfinite(torch.as_tensor(v)).all() for k, v in losses.items() if '.' in k)
        if method == 'AttentionTransfer':
            assert [(s, t) for _, s, _, t in distiller.methods[0].pairs] == [(i, i) for i in range(4)]


def test_features_of_a_bridge_are_resized_as_those_of_its_teacher(tmp_path):
    """Strides 8 and 16 of the student have none in common with 32 and 64 of the teacher."""
    student, teacher = tiny_retinanet(), tiny_retinanet(16, 24)
    student['neck'].update(end_level=2, num_outs=2)
    student['bbox_head']['anchor_generator']['strides'] = [8, 16]
    teacher['neck'].update(start_level=3, num_outs=2)
    teacher['bbox_head']['anchor_generator']['strides'] = [32, 64]
    alone = dict(w_teacher_bridge=0, w_student_bridge=0, w_bridge_student=0)
    method = dict(type='mmrkd.SemiOnlineKD', split='layer4', feature_loss=dict(type='mmrkd.FeatureMSELoss'), **alone)
    distiller, losses = step(
        student, save_random_teacher(teacher, tmp_path), method, detection_batch(), resize='bilinear'
    )
    bridge = distiller.methods[0].bridge
    (pair, *_) = distiller.match.pairs
    assert distiller.match.student_levels[pair[0]].stride != distiller.match.teacher_levels[pair[1]].stride
    losses['semionlinekd.loss_teacher_bridge_feat'].backward()
    assert next(p for n, p in bridge.model.named_parameters() if 'neck' in n).grad.abs().sum() > 0
    assert {f'semionlinekd.loss_{n}_feat' for n in ('teacher_bridge', 'student_bridge', 'bridge_student')} < set(losses)


class TestBoxes:
    def test_a_head_with_two_forms_is_compared_in_that_of_training(self, tmp_path):
        """FCOS multiplies its boxes by the strides in evaluation: an equal teacher must leave nothing to learn."""
        cfg = tiny_fcos()
        teacher = save_random_teacher(cfg, tmp_path)
        distiller = build_distiller(cfg, teacher, [dict(type='mmrkd.KD', w_box=1.0)])
        distiller.student.load_state_dict(distiller.teacher.model.state_dict())
        distiller.student.backbone.eval()
        inputs, samples = model_inputs(distiller, detection_batch(), training=False)
        distiller.student.bbox_head.training = True
        assert distiller.loss(inputs, samples)['kd.loss_kd_box'].item() == pytest.approx(0, abs=1e-6)
        assert not distiller.teacher.model.bbox_head.training
        distiller.student.bbox_head.training = False
        assert distiller.loss(inputs, samples)['kd.loss_kd_box'].item() > 1e-3

    def test_points_are_no_boxes(self, wide_retinanet):
        adapter = DetectionAdapter(build_model(tiny_retinanet()))
        scores, points = torch.rand(1, 3 * NUM_CLASSES, 2, 2), torch.rand(1, 18, 2, 2)
        with pytest.raises(ValueError, match='RetinaHead does not regress 4 values.*Set w_box=0'):
            adapter.boxes(([scores], [points]))
        assert adapter.boxes(([scores], [points[:, :12]]))[0].shape == (12, 4)
