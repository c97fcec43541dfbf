"""What shows on a GPU alone: automatic mixed precision with a loss scale, and a teacher that moves along."""

import pytest
import torch
from mmengine.model import convert_sync_batchnorm
from mmengine.optim import AmpOptimWrapper, OptimWrapper

from mmrkd.testing import (
    build_distiller,
    classification_batch,
    detection_batch,
    model_inputs,
    save_random_teacher,
    tiny_classifier,
    tiny_retinanet,
)

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')]
DEVICE = 'cuda'
FAMILIES = {
    'retinanet': (tiny_retinanet(), tiny_retinanet(12, 24), detection_batch),
    'classifier': (tiny_classifier(), tiny_classifier(12), classification_batch),
}


@pytest.fixture(params=list(FAMILIES))
def model_and_batch(request, tmp_path):
    student, teacher, batch = FAMILIES[request.param]
    methods = [dict(type='mmrkd.ERA', w_kd=1.0, twi_on='all', twi_kd=True), dict(type='mmrkd.FitNets')]
    model = build_distiller(student, save_random_teacher(teacher, tmp_path), methods).to(DEVICE).train()
    return model, batch()


def losses_of(model, wrapper, batch):
    with wrapper.optim_context(model):
        total, terms = model.parse_losses(model(*model_inputs(model, batch), mode='loss'))
    return total, {name: float(value) for name, value in terms.items()}


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_mixed_precision_gives_the_losses_of_full_precision(model_and_batch, dtype):
    model, batch = model_and_batch
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    fingerprint = model.teacher.fingerprint()
    _, full = losses_of(model, OptimWrapper(optimizer), batch)
    mixed_wrapper = AmpOptimWrapper(optimizer=optimizer, dtype=dtype, loss_scale='dynamic')
    total, mixed = losses_of(model, mixed_wrapper, batch)
    for losses in (full, mixed):
        losses.pop('era.loss_kd')  # almost 0 at the start: two fresh heads answer about the same
    assert mixed == pytest.approx(full, rel=0.01)
    assert total.dtype == torch.float32
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    mixed_wrapper.update_params(total)
    moved = [bool((parameter != before).any()) for parameter, before in zip(model.parameters(), weights)]
    assert sum(moved) > len(moved) / 2
    assert model.teacher.fingerprint() == fingerprint


def test_a_step_with_synchronised_norms(model_and_batch):
    model, batch = model_and_batch
    model = convert_sync_batchnorm(model)
    logs = model.train_step(batch, OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01)))
    assert all(torch.isfinite(value).all() for value in logs.values())


def test_every_variant_predicts_there(model_and_batch):
    model, batch = model_and_batch
    model.eval()
    for variant in model.variants:
        model.set_variant(variant)
        samples = model.test_step(batch)
        assert len(samples) == len(batch['data_samples'])
