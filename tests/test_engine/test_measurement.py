"""Shares of the gradient and explained residuals, beside what is computed in another way."""

from copy import deepcopy

import pytest
import torch
from torch.utils.data import Subset

from mmrkd.engine.measurement import as_validated, measure_step
from mmrkd.models.loss_guard import LossGuard
from mmrkd.testing import (
    build_distiller,
    classification_batch,
    detection_batch,
    model_inputs,
    save_random_teacher,
    tiny_classifier,
    tiny_retinanet,
)


@pytest.fixture(scope='module')
def teachers(tmp_path_factory):
    folder = tmp_path_factory.mktemp('teachers')
    return dict(
        classifier=save_random_teacher(tiny_classifier(12), folder, seed=5),
        retinanet=save_random_teacher(tiny_retinanet(12, 24), folder, seed=6),
    )


def norm_of(losses, parameters):
    """Of the gradient of a sum of losses, by another function of torch."""
    grads = torch.autograd.grad(sum(losses), parameters, retain_graph=True, allow_unused=True)
    return torch.cat([g.flatten() for g in grads if g is not None]).norm().item()


METHODS = [
    dict(type='mmrkd.FitNets', w_feat=3.0),
    dict(type='mmrkd.KD', w_kd=0.5),
    dict(type='mmrkd.FitNets', name='off', w_feat=0.0),
]


def test_shares_are_norms_by_the_sum_of_the_norms(teachers):
    distiller = build_distiller(tiny_classifier(), teachers['classifier'], METHODS).train()
    batch = classification_batch()
    before, rng = deepcopy(distiller.state_dict()), torch.get_rng_state()
    shares, numbers = measure_step(distiller, batch)
    scaled, _ = measure_step(distiller, batch, scale=1024.0)
    assert numbers == {} and sorted(shares) == ['fitnets', 'kd']
    assert shares == pytest.approx(scaled, rel=1e-4)

    assert all(torch.equal(value, before[key]) for key, value in distiller.state_dict().items()), 'BatchNorm included'
    assert all(parameter.grad is None for parameter in distiller.parameters())
    assert torch.equal(torch.get_rng_state(), rng)
    assert batch['inputs'][0].dtype == torch.uint8

    losses = distiller.loss(*model_inputs(distiller, batch))
    parameters = list(distiller.student.parameters())
    task = norm_of([losses['loss']], parameters)
    norms = {name: norm_of([v for k, v in losses.items() if k.startswith(name)], parameters) for name in shares}
    total = task + sum(norms.values())
    assert shares == pytest.approx({name: norm / total for name, norm in norms.items()}, rel=1e-4)
    assert min(*shares.values(), task / total) > 0.001, 'all three of them count here'


def test_a_weight_moves_a_share_as_it_should(teachers):
    """From w to 3 w a share s becomes 3 s / (1 + 2 s)."""
    shares = []
    for weight in (1.0, 3.0):
        methods = [dict(type='mmrkd.FitNets', w_feat=weight)]
        distiller = build_distiller(tiny_retinanet(), teachers['retinanet'], methods).train()
        shares.append(measure_step(distiller, detection_batch())[0]['fitnets'])
    assert 0 < shares[0] < shares[1] < 1
    assert shares[1] == pytest.approx(3 * shares[0] / (1 + 2 * shares[0]), rel=1e-4)


def test_layers_that_compute_their_forward_pass_again(teachers):
    shares = []
    for again in (False, True):
        student = tiny_retinanet()
        student['backbone']['with_cp'] = again
        distiller = build_distiller(student, teachers['retinanet'], [dict(type='mmrkd.FitNets')]).train()
        shares.append(measure_step(distiller, detection_batch())[0]['fitnets'])
    assert shares[1] == pytest.approx(shares[0], rel=1e-5)


def test_no_share_without_a_gradient_that_is_finite(teachers):
    distiller = build_distiller(tiny_classifier(), teachers['classifier'], METHODS).train()
    distiller.guard = LossGuard('stop')  # a real step would end here
    distiller.methods['fitnets'].w_feat = float('inf')
    assert measure_step(distiller, classification_batch()) == ({}, {})


def test_what_a_runner_compiled_is_not_run(teachers):
    """``compile=True`` puts a function into the instance that runs the model itself, whichever copy it is called on."""
    distiller = build_distiller(tiny_classifier(), teachers['classifier'], METHODS).train()
    expected = measure_step(distiller, classification_batch())[0]

    def compiled(*args, **kwargs):
        raise AssertionError('the model that is trained was run')

    distiller.forward = distiller.loss = compiled
    assert measure_step(distiller, classification_batch())[0] == expected


@pytest.mark.parametrize('kind', ['classifier', 'retinanet'])
def test_era_says_how_much_of_the_residual_its_branches_explain(kind, teachers):
    student, batch = {
        'classifier': (tiny_classifier(), classification_batch(8)),
        'retinanet': (tiny_retinanet(), detection_batch()),
    }[kind]
    methods = [dict(type='mmrkd.ERA', num_branches=2, w_res=1.0)]
    distiller = build_distiller(student, teachers[kind], methods).train()
    method = distiller.methods['era']
    for parameter in method.neck.branches.parameters():  # so that they give something
        torch.nn.init.normal_(parameter, std=0.3)
    for _ in range(2):
        distiller.loss(*model_inputs(distiller, batch))  # statistics of the teacher
    before = deepcopy(distiller.state_dict())
    _, numbers = measure_step(distiller, batch)
    assert all(torch.equal(value, before[key]) for key, value in distiller.state_dict().items())

    inputs, samples = model_inputs(distiller, batch)
    with torch.no_grad():
        feats = method.pair.student_feats(distiller.adapter.extract(inputs))
        teacher = method.pair.teacher_view(method.pair.teacher_pass(inputs, samples), feats).feats
        if method.neck.standardizer is not None:  # measure_step has shown it one batch more; the same one
            method.neck.standardizer.update(teacher)
            teacher = method.neck.standardizer.normalize(teacher)
        first, (d1, d2) = method.neck.steps(feats)
    left = whole = 0.0
    for t, h, a, b in zip(teacher, first, d1, d2):
        residual = (t - h).transpose(0, 1).flatten(1)  # channels x everything else
        estimate = (a + b).transpose(0, 1).flatten(1)
        left += (residual - estimate).pow(2).mean().item()
        whole += residual.var(dim=1, unbiased=False).mean().item()
    assert numbers == {'era': {'residual_explained': pytest.approx(1 - left / whole, rel=1e-3)}}
    assert abs(numbers['era']['residual_explained']) > 1e-3


def test_era_without_residual_terms_promises_nothing(teachers):
    methods = [dict(type='mmrkd.ERA', w_res=0.0)]
    distiller = build_distiller(tiny_classifier(), teachers['classifier'], methods).train()
    shares, numbers = measure_step(distiller, classification_batch())
    assert list(shares) == ['era'] and numbers == {'era': {}}


class Leaf:
    def __init__(self, pipeline=None, **attributes):
        if pipeline is not None:
            self.pipeline = pipeline
        self.__dict__.update(attributes)


class Wrapper:
    def __init__(self, **inner):
        self.__dict__.update(inner)


def test_training_images_are_seen_as_the_validation_would():
    train, val = Leaf(['augmented'], ann_file='train.json', test_mode=False), Leaf(['plain'], ann_file='val.json')
    for wrapped in (train, Wrapper(dataset=Wrapper(datasets=[train, None])), Wrapper(datasets=[train])):
        seen, path = as_validated(wrapped, Wrapper(dataset=val))
        assert seen.pipeline == ['plain'] and seen.test_mode and path == 'train.json'
        assert train.pipeline == ['augmented'] and not train.test_mode, 'the set of the training is not changed'
    part = Subset(train, [0])
    assert as_validated(part, val) == (part, None), 'what was left out of a set is not looked at'
    bare = Leaf()
    assert as_validated(bare, val) == (bare, None)
