import pytest
import torch

from mmrkd.adapters import build_adapter
from mmrkd.testing import (
    build_distiller,
    build_model,
    classification_batch,
    model_inputs,
    save_random_teacher,
    tiny_classifier,
)


def retriever():
    cfg = tiny_classifier()
    encoder = [cfg.pop('backbone'), cfg.pop('neck')]
    cfg.update(type='ImageToImageRetriever', image_encoder=encoder, prototype=torch.eye(4, 64))
    cfg['head'] = dict(type='ArcFaceClsHead', num_classes=4, in_channels=64)
    return cfg


def test_a_student_equal_to_its_teacher_has_nothing_to_learn(tmp_path):
    distiller = build_distiller(retriever(), save_random_teacher(retriever(), tmp_path), [dict(type='mmrkd.KD')])
    distiller.student.load_state_dict(distiller.teacher.model.state_dict())
    inputs, samples = model_inputs(distiller, classification_batch())
    distiller.train().student.image_encoder.eval()
    losses = distiller.loss(inputs, samples)
    assert losses['kd.loss_kd'].item() == pytest.approx(0, abs=1e-5) and losses['loss'] > 1


def test_the_encoder_is_run_once():
    adapter = build_adapter(build_model(retriever()).eval())
    inputs, samples = model_inputs(adapter.model, classification_batch(), training=False)
    expected = adapter.model.loss(inputs, samples)['loss']
    feats, calls = adapter.extract(inputs), []
    adapter.model.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    assert torch.equal(adapter.task_loss(feats, inputs, samples)[0]['loss'], expected) and not calls
    assert adapter.main_metric == 'retrieval/Recall@1' and adapter.num_classes == 4
