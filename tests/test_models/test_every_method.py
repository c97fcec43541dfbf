"""What holds for every method of the registry, alone and beside every other one.

Methods for segmentors or pose estimators alone are left out where their library is not installed.
"""

import importlib.util
import inspect
import itertools

import pytest
import torch

from mmrkd.engine.compose import method_names
from mmrkd.models import DistillMethod, FrozenTeacher
from mmrkd.registry import MODELS
from mmrkd.testing import (
    build_distiller,
    build_model,
    classification_batch,
    detection_batch,
    model_inputs,
    paired,
    pose_batch,
    save_random_teacher,
    segmentation_batch,
    tiny_classifier,
    tiny_gfl,
    tiny_pose,
    tiny_segmentor,
)

# Methods for models of a library that may be absent.
ABSENT = () if importlib.util.find_spec('mmseg') else ('onlineensemble', 'rdd')
ABSENT += () if importlib.util.find_spec('mmpose') else ('dwpose',)
KINDS = {name.lower(): kind for name, kind in MODELS.module_dict.items() if isinstance(kind, type)}
METHODS = {
    name: f'mmrkd.{KINDS[name].__name__}'
    for name in method_names()
    if KINDS[name].__module__.startswith('mmrkd') and name not in ABSENT
}
ARGUMENTS = dict(
    r2kd=dict(rank='soft'),  # where both weights are in force
    gdkd=dict(k=2),  # of four classes
    crosskd=dict(layer=1),  # of heads with one convolution
    dskd=dict(student_layers=[f'backbone.student.layer{i}' for i in (1, 2, 3)]),  # the pair has no stages of its own
    rdd=dict(min_kept=0.1, combination='or'),  # of small images, and of teachers that know nothing
    l2sp=dict(parts='head'),  # where a bias has the shape of the teacher's
)
NO_SHARE = ('l2sp',)  # it holds weights and not features, so its weight stays
OFF = dict(  # where the arguments are not the weights themselves, or not all that it does
    gdkd=dict(weights=(0, 0, 0), w_task=0),
    rdd=dict(w_kd=0, w_rdd=0),
)
# A student with an assistant, as ResidualKD needs it, and a head with distributions of boxes, as LD does.
STUDENTS = dict(classifier=paired(tiny_classifier(8), 6, 3), detector=paired(tiny_gfl(8), 6, 3))
BATCHES = dict(classifier=classification_batch, detector=detection_batch)
IMAGES = dict(classifier=8, detector=2, segmentor=2, pose=2)  # PKD needs 8 pooled features
TEACHERS = dict(classifier=tiny_classifier(12), detector=tiny_gfl(12, 24))
if 'rdd' not in ABSENT:
    STUDENTS['segmentor'], TEACHERS['segmentor'] = tiny_segmentor(), tiny_segmentor(12, 12)
    BATCHES['segmentor'] = segmentation_batch
if 'dwpose' not in ABSENT:
    STUDENTS['pose'], TEACHERS['pose'] = tiny_pose('coordinates'), tiny_pose('coordinates', width=12)


@pytest.fixture(scope='module')
def teachers(tmp_path_factory):
    folder = tmp_path_factory.mktemp('teachers')
    return {
        kind: FrozenTeacher(**save_random_teacher(cfg, folder, seed=seed))
        for seed, (kind, cfg) in enumerate(TEACHERS.items(), start=5)
    }


def cfg_of(name, **changes):
    return dict(type=METHODS[name], **ARGUMENTS.get(name, {}), **changes)


def build(kind, teachers, methods):
    return build_distiller(STUDENTS[kind], teachers[kind], methods, seed=3).train()


def batch_of(kind, model, **how):
    return pose_batch(model.head.decoder, **how) if kind == 'pose' else BATCHES[kind](**how)


def step(distiller, kind, seed, **how):
    inputs, samples = model_inputs(distiller, batch_of(kind, distiller, seed=seed, **how))
    further = dict(views=(inputs.flip(3) * 0.9,)) if any(m.views for m in distiller.methods.values()) else {}
    total, log = distiller.parse_losses(distiller(inputs, samples, mode='loss', **further))
    assert all(torch.isfinite(torch.as_tensor(value)) for value in log.values()), log
    total.backward()
    return {name.split('.')[0] for name in log if '.' in name} - {'decode', 'aux'}  # heads of a segmentor


@pytest.fixture(scope='module')
def fitting(teachers):
    """Kind of model -> the methods that work with it; the others refuse it while they are built."""

    def works(kind, name):
        try:
            build(kind, teachers, [cfg_of(name)])
        except ValueError:
            return False
        return True

    return {kind: [name for name in METHODS if works(kind, name)] for kind in STUDENTS}


def test_each_works_with_some_kind_of_model(fitting):
    assert {name for names in fitting.values() for name in names} == set(METHODS)
    assert all(len(names) >= 8 for names in fitting.values())


@pytest.mark.parametrize('kind', STUDENTS)
def test_alone_it_trains_the_student_and_moves_no_teacher(kind, teachers, fitting):
    for name in fitting[kind]:
        distiller = build(kind, teachers, [cfg_of(name)])
        before, optimizer = distiller.teacher.fingerprint(), torch.optim.SGD(distiller.parameters(), 1e-3)
        for seed in range(2):
            assert step(distiller, kind, seed) == {distiller.methods[0].name}, name
            optimizer.step()
            optimizer.zero_grad()
        assert distiller.teacher.fingerprint() == before, name
        plain = build_model(STUDENTS[kind], seed=4)
        state = {k: v for k, v in distiller.state_dict().items() if not k.startswith('methods.')}
        assert list(state) == list(plain.state_dict()), name


@pytest.mark.parametrize('kind', STUDENTS)
def test_with_a_share_for_all_its_weights_it_trains(kind, teachers, fitting):
    for name in fitting[kind]:
        distiller = build(kind, teachers, [cfg_of(name, balance=0.1)])
        balance, optimizer = distiller.methods[0].balance, torch.optim.SGD(distiller.parameters(), 1e-3)
        for seed in range(2):
            step(distiller, kind, seed, num_images=IMAGES[kind])
            optimizer.step()
            optimizer.zero_grad()
        assert balance.seen.tolist() == [2] * len(balance.weights), name
        assert bool((balance.factors != 1).any()) == (name not in NO_SHARE), name


@pytest.mark.parametrize('name', [name for name in METHODS if name != 'gdkd'])  # its weights are one argument
def test_each_weight_may_set_itself(name, teachers, fitting):
    kind = next(kind for kind in fitting if name in fitting[kind])
    weights = set(KINDS[name].weights) & set(inspect.signature(KINDS[name]).parameters) - {'w_centerness'}  # ATSS's
    distiller = build(kind, teachers, [cfg_of(name, **dict.fromkeys(weights, 'auto'))])
    step(distiller, kind, 0, num_images=IMAGES[kind])
    balance = distiller.methods[0].balance
    assert set(balance.weights) == weights and balance.seen.tolist() == [1] * len(weights)
    assert bool((balance.factors != 1).any()) == (name not in NO_SHARE)


@pytest.mark.slow
@pytest.mark.parametrize('kind', STUDENTS)
def test_beside_every_other_one_it_still_trains(kind, teachers, fitting):
    for pair in itertools.combinations(fitting[kind], 2):
        distiller = build(kind, teachers, [cfg_of(name) for name in pair])
        assert step(distiller, kind, 0) == set(distiller.methods), pair
        idle = [n for n, p in distiller.named_parameters() if p.requires_grad and p.grad is None]
        assert idle == [], f'{pair}: DDP would wait for them'
        assert all(p.grad is None for p in distiller.teacher.model.parameters())


@pytest.mark.parametrize('name', METHODS)
def test_without_a_weight_it_is_off_bit_for_bit(name, teachers, fitting):
    kind = next(kind for kind in fitting if name in fitting[kind])
    weights = KINDS[name].weights
    assert weights, 'a method declares its weights'
    arguments = [weight for weight in weights if not isinstance(getattr(KINDS[name], weight, None), property)]
    given = OFF.get(name, dict.fromkeys(arguments, 0))
    distiller = build(kind, teachers, [cfg_of(name, **given)])
    assert not distiller.methods[0].active
    plain = build_model(STUDENTS[kind], seed=3).train()
    losses = []
    for model in (distiller, plain):
        torch.manual_seed(1)
        inputs, samples = model_inputs(model, batch_of(kind, model))
        losses.append(model.parse_losses(model(inputs, samples, mode='loss'))[0])
    assert torch.equal(*losses)
    assert issubclass(KINDS[name], DistillMethod)
