import pytest
import torch
from reference import opinionated_teacher, second_teacher

from mmrkd.models.methods import L2SP
from mmrkd.testing import build_distiller, classification_batch, model_inputs, tiny_classifier


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    return opinionated_teacher(tiny_classifier(8, num_classes=7), tmp_path_factory.mktemp('source'), seed=21)


def build(teacher, init_student='', **l2_sp):
    methods = [dict(type='mmrkd.L2SP', **l2_sp)]
    return build_distiller(tiny_classifier(8), teacher, methods, seed=3, init_student=init_student).double().train()


def loss(distiller):
    inputs, samples = model_inputs(distiller, classification_batch())
    return distiller.loss(inputs.double(), samples)['l2sp.loss_sp']


def test_it_is_the_mean_distance_to_the_start(source):
    distiller, start = build(source, w_sp=3.0), dict(second_teacher(source).named_parameters())
    total = count = 0
    for name, value in distiller.student.named_parameters():
        if name.startswith('backbone.'):
            total, count = total + (value - start[name]).square().sum().item(), count + value.numel()
    before, found = distiller.teacher.fingerprint(), loss(distiller)
    assert found.item() == pytest.approx(3 * total / count, rel=1e-5) and found > 1e-3
    found.backward()
    assert distiller.student.head.fc.weight.grad is None and distiller.teacher.fingerprint() == before


def test_at_the_start_it_is_zero_and_the_source_is_not_run(source):
    distiller, calls = build(source, init_student='backbone'), []
    distiller.teacher.model.backbone.register_forward_hook(lambda *_: calls.append(1))
    assert loss(distiller).item() == pytest.approx(0, abs=1e-12) and not calls
    with torch.no_grad():
        next(distiller.student.backbone.parameters()).add_(1)
    assert loss(distiller) > 0


def test_what_does_not_fit_is_refused(wide_classifier, source):
    with pytest.raises(ValueError, match='no parameter of .*backbone.* same name and shape'):
        build(wide_classifier)
    with pytest.raises(ValueError, match='w_sp=-1.0'):
        L2SP(w_sp=-1.0)
    with pytest.raises(ValueError, match='there is none'):
        build(None)
    assert loss(build(source, parts=['neck', 'backbone'])) > 0
